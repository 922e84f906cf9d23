// Streams twice: through the helper that accumulates, and chunk by chunk.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const pieces = [];
const helped = client.chat.completions.stream(given.asked).on('content', (piece) => pieces.push(piece));
const completion = await helped.finalChatCompletion();

const deltas = [];
for await (const chunk of await client.chat.completions.create({ ...given.asked, stream: true })) {
  deltas.push(...chunk.choices.map((choice) => choice.delta));
}
say({ completion, pieces, deltas });

// Streams twice: through the helper that accumulates, and event by event.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const pieces = [];
const helped = client.messages.stream(given.asked).on('text', (piece) => pieces.push(piece));
const message = await helped.finalMessage();

const kinds = [];
for await (const event of await client.messages.create({ ...given.asked, stream: true })) {
  kinds.push(event.type);
}
say({ message, pieces, kinds });

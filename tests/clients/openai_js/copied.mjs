// A tool loop written by hand, which copies the messages as the SDK gives them into the history.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const function_ = {
  name: 'get_weather',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};
const messages = [...given.messages];
let choice;
do {
  const asked = { model: given.model, messages, tools: [{ type: 'function', function: function_ }] };
  const completion = given.stream
    ? await client.chat.completions.stream(asked).finalChatCompletion()
    : await client.chat.completions.create(asked);
  choice = completion.choices[0];
  messages.push(choice.message);
  for (const call of choice.message.tool_calls ?? []) {
    messages.push({ role: 'tool', tool_call_id: call.id, content: '18 degrees' });
  }
} while (choice.finish_reason === 'tool_calls');
say(messages);

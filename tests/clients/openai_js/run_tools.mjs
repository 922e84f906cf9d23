// The SDK's own tool loop, which copies the messages it got into the history.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const tool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    parse: JSON.parse,
    function: ({ city }) => `18 degrees in ${city ?? 'nowhere'}`,
  },
};
const runner = client.chat.completions.runTools({ ...given.asked, tools: [tool] });
const answer = await runner.finalContent();
say({ answer, messages: runner.messages });

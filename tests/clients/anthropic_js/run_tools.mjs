// The SDK's own tool loop, which copies the messages it got into the history.
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { z } from 'zod';

import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const tool = betaZodTool({
  name: 'get_weather',
  description: 'The weather of a city',
  inputSchema: z.object({ city: z.string() }),
  run: ({ city }) => `18 degrees in ${city}`,
});
const runner = client.beta.messages.toolRunner({ ...given.asked, tools: [tool] });
const answer = await runner.runUntilDone();
say({ answer, messages: runner.params.messages });

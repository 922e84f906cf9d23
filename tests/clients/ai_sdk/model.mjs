import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { tool } from 'ai';
import { z } from 'zod';

import { given } from '../case.mjs';

const provider = createOpenAICompatible({
  name: 'dragoman',
  baseURL: given.baseURL,
  apiKey: given.apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});

export const model = provider(given.model);

export const tools = {
  get_weather: tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `18 degrees in ${city}`,
  }),
};

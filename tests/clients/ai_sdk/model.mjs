import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { tool } from 'ai';
import { z } from 'zod';

import { given } from '../case.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false; // they would stand in what the case says: a model that it has not heard of

const { baseURL, apiKey } = given;
const provider =
  given.provider === 'anthropic'
    ? createAnthropic({ baseURL: `${baseURL}/v1`, apiKey })
    : createOpenAICompatible({ name: 'dragoman', baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });

export const model = provider(given.model);

export const tools = {
  get_weather: tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `18 degrees in ${city}`,
  }),
};

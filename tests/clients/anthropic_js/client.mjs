import Anthropic from '@anthropic-ai/sdk';

import { given } from '../case.mjs';

export const client = new Anthropic({ baseURL: given.baseURL, apiKey: given.apiKey, maxRetries: given.maxRetries ?? 0 });

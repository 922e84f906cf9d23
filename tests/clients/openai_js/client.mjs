import OpenAI from 'openai';

import { given } from '../case.mjs';

export const client = new OpenAI({ baseURL: given.baseURL, apiKey: given.apiKey, maxRetries: 0 });

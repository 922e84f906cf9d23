import { APICallError, generateText } from 'ai';

import { given, say } from '../case.mjs';
import { model } from './model.mjs';

try {
  await generateText({ model, prompt: given.prompt, maxRetries: 0 });
  say(null);
} catch (error) {
  const { message, statusCode, isRetryable } = error;
  say({ isApiCallError: APICallError.isInstance(error), message, statusCode, isRetryable });
}

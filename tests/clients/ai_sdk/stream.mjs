import { stepCountIs, streamText } from 'ai';

import { given, say } from '../case.mjs';
import { model, tools } from './model.mjs';

const result = streamText({
  model,
  prompt: given.prompt,
  maxRetries: 0,
  onError: () => {}, // it is a part of the stream as well
  ...(given.withTools ? { tools, stopWhen: stepCountIs(5) } : {}),
});
const parts = [];
for await (const { type, text, toolName, input, output, finishReason, totalUsage, error } of result.fullStream) {
  parts.push({ type, text, toolName, input, output, finishReason, totalUsage, error: error && described(error) });
}
say(parts);

function described(error) {
  return error instanceof Error ? { message: error.message, statusCode: error.statusCode } : error;
}

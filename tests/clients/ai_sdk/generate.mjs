import { generateText, stepCountIs } from 'ai';

import { given, say } from '../case.mjs';
import { model, tools } from './model.mjs';

const { text, reasoningText, finishReason, totalUsage, steps } = await generateText({
  model,
  prompt: given.prompt,
  maxRetries: 0,
  ...(given.withTools ? { tools, toolChoice: given.toolChoice, stopWhen: stepCountIs(given.steps ?? 5) } : {}),
});
say({
  text,
  reasoningText,
  finishReason,
  totalUsage,
  calls: steps.flatMap((step) => step.toolCalls.map(({ toolName, input }) => ({ toolName, input }))),
});

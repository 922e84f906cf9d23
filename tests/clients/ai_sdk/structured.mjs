import { generateText, Output } from 'ai';
import { z } from 'zod';

import { given, say } from '../case.mjs';
import { model } from './model.mjs';

const schema = z.object({ city: z.string(), days: z.number().int().min(1).max(30) });
const { output } = await generateText({ model, prompt: given.prompt, maxRetries: 0, output: Output.object({ schema }) });
say(output);

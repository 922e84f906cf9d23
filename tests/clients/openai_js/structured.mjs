import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const Trip = z.object({ city: z.string(), days: z.number().int().min(1).max(30), stops: z.array(z.string()) });
const asked = { ...given.asked, response_format: zodResponseFormat(Trip, 'trip') };
const whole = await client.chat.completions.parse(asked);
const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
say([whole, streamed].map((completion) => completion.choices[0].message.parsed));

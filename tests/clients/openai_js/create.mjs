import { given, say } from '../case.mjs';
import { client } from './client.mjs';

say(await client.chat.completions.create(given.asked));

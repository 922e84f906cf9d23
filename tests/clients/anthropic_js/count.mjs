import { given, say } from '../case.mjs';
import { client } from './client.mjs';

say(await client.messages.countTokens(given.asked));

// What a program catches for each of the requests.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const caught = [];
for (const asked of given.requests) {
  try {
    const answer = await client.chat.completions.create(asked);
    if (asked.stream) for await (const _ of answer);
    caught.push(null);
  } catch ({ constructor, status, code, type, param, message }) {
    caught.push({ class: constructor.name, status, code, type, param, message });
  }
}
say(caught);

// What a program catches for each of the requests.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const caught = [];
for (const asked of given.requests) {
  try {
    const answer = await client.messages.create(asked);
    if (asked.stream) for await (const _ of answer);
    caught.push(null);
  } catch ({ constructor, status, type, message, requestID }) {
    caught.push({ class: constructor.name, status, type, message, hasRequestID: Boolean(requestID) });
  }
}
say(caught);

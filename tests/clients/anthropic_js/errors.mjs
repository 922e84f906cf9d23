// What a program catches for each of the requests, and what it had got by then.
import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const caught = [];
for (const asked of given.requests) {
  const pieces = [];
  try {
    const answer = await client.messages.create(asked);
    if (asked.stream) for await (const event of answer) pieces.push(event.delta?.text ?? '');
    caught.push(null);
  } catch ({ constructor, status, type, message, requestID }) {
    const hasRequestID = Boolean(requestID);
    caught.push({ class: constructor.name, status, type, message, hasRequestID, got: pieces.join('') });
  }
}
say(caught);

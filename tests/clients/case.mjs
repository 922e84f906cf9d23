// What every case does: it is given its values on standard input and says what came of them as JSON.
import { text } from 'node:stream/consumers';

export const given = JSON.parse(await text(process.stdin));

export function say(value) {
  process.stdout.write(JSON.stringify(value));
}

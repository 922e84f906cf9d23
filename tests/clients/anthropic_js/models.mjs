import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const ids = [];
for await (const model of client.models.list({ limit: given.limit })) ids.push(model.id);
say({ ids, one: await client.models.retrieve(given.model) });

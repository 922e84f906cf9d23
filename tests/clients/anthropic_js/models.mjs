import { given, say } from '../case.mjs';
import { client } from './client.mjs';

const pages = [];
const first = await client.models.list({ limit: given.limit });
for await (const page of first.iterPages()) pages.push(page.data.map((model) => model.id));
say({ pages, one: await client.models.retrieve(given.model) });

// Uses a blob server through the unmodified JavaScript client and says, as JSON, what came of it.
'use strict';
delete global.File; // with it the client takes Node 20 for a browser
const asked = new URL(process.argv[2]);
const engine = require('webgme-engine');
const BlobClient = engine.requirejs('blob/BlobClient');
const silent = () => {};
const client = new BlobClient({
  server: asked.hostname,
  serverPort: asked.port,
  httpsecure: false,
  apiToken: process.env.TOKEN,
  logger: {debug: silent, log: silent, info: silent, warn: silent, error: silent},
});

const text = (buffer) => Buffer.from(buffer).toString('utf8');

async function main() {
  const said = {};
  said.file = await client.putFile('héllo w.txt', 'some text');
  said.json = await client.putFile('value.json', JSON.stringify({a: 1}));
  said.empty = await client.putFile('empty', '');
  said.metadata = await client.getMetadata(said.file);
  said.text = text(await client.getObject(said.file));
  said.value = await client.getObjectAsJSON(said.json);

  const artifact = client.createArtifact('results');
  await artifact.addFile('dir/inner.txt', 'inner');
  await artifact.addFileAsSoftLink('dir/linked.txt', 'linked');
  await artifact.addMetadataHash('again.txt', said.file);
  await artifact.addObjectHash('copy.txt', said.file);
  said.artifact = await artifact.save();
  said.inner = text(await client.getSubObject(said.artifact, 'dir/inner.txt'));
  said.linked = text(await client.getSubObject(said.artifact, 'dir/linked.txt'));
  said.again = text(await client.getSubObject(said.artifact, 'again.txt'));
  const known = await client.getArtifact(said.artifact);
  said.files = Object.keys(known.descriptor.content);
  said.zip = Buffer.from(await client.getObject(said.artifact)).toString('base64');
  said.missing = await client.getMetadata('0'.repeat(40)).then(() => 'there', () => 'missing');
  return said;
}

main().then(
  (said) => {
    console.log(JSON.stringify(said));
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  }
);

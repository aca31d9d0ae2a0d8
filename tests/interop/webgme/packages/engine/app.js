// Starts the unmodified server. Its settings come as JSON in ENGINE; it says "ready" once it answers.
'use strict';
const path = require('path');
const asked = JSON.parse(process.env.ENGINE);
const home = path.dirname(require.resolve('webgme-engine/package.json'));
const config = require(path.join(home, 'config', 'config.default.js'));

config.server.port = asked.port;
config.server.handle = {host: '127.0.0.1', port: asked.port}; // or it listens to everybody
config.server.log.transports = config.server.log.transports.filter(
  (one) => one.transportType === 'Console'
);
config.storage.database.type = 'memory'; // projects; all else is in the database regardless
config.mongo.uri = asked.mongo;
config.blob.type = 'FS';
config.blob.fsDir = path.join(process.cwd(), 'blobs');
config.executor.enable = true;
config.executor.workerRefreshInterval = asked.refreshMs;
if (asked.admin) {
  config.authentication.enable = true;
  config.authentication.allowGuests = false;
  config.authentication.adminAccount = asked.admin;
  config.executor.authentication.enable = true;
  config.executor.authentication.allowGuests = false;
}
require(path.join(home, 'config', 'validator.js')).validateConfig(config);

const engine = require('webgme-engine');
engine.addToRequireJsPaths(config);
engine.standaloneServer(config).start((error) => {
  if (error) {
    console.error(error);
    process.exit(1);
  }
  console.log('ready');
});

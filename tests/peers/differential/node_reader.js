// Reads messages with Node's own parser, in the lines of h11_reader.py; messages never touch a network.
'use strict';
const http = require('http');
const { Duplex } = require('stream');
const readline = require('readline');

// A socket that gives `data` and then ends, a client's once it was asked; what is written to it goes nowhere.
function socket(data, asked) {
  const speak = () => {
    if (data) { if (data.length) stream.push(data); stream.push(null); }
    data = null;
  };
  const stream = new Duplex({ read() {}, write(chunk, encoding, done) { done(); speak(); }, allowHalfOpen: true });
  stream.setTimeout = stream.setNoDelay = stream.setKeepAlive = stream.ref = stream.unref = () => stream;
  if (!asked) speak();
  return stream;
}

function fieldsOf(raw) {
  const fields = [];
  for (let at = 0; at < raw.length; at += 2) fields.push([raw[at].toLowerCase(), raw[at + 1]]);
  return fields;
}

function requests(data, done) {
  const messages = [];
  let error = null;
  const server = http.createServer({ insecureHTTPParser: false }, (request, response) => {
    const message = { method: request.method, target: request.url, fields: fieldsOf(request.rawHeaders), body: [], whole: false };
    messages.push(message);
    request.on('data', (chunk) => message.body.push(chunk));
    request.on('end', () => { message.whole = request.complete; response.end(); });
    request.on('error', () => {});
  });
  server.on('clientError', (refused, stream) => { error = refused.code || refused.message; stream.destroy(); });
  const stream = socket(data, false);
  stream.on('close', () => { clearInterval(server._connectionsCheckingInterval); done({ messages, error }); });
  server.emit('connection', stream);
  // A connection that the server keeps open after its end has nothing more to say.
  stream.on('end', () => setImmediate(() => setImmediate(() => setImmediate(() => stream.destroy()))));
}

function answers(method, data, done) {
  const messages = [];
  let error = null, over = false;
  const finish = () => { if (!over) { over = true; done({ messages, error }); } };
  const stream = socket(data, true);
  const request = http.request({ method, path: '/', host: 'a', createConnection: () => stream });
  request.on('information', (head) => messages.push({ status: head.statusCode, body: [], whole: true }));
  request.on('response', (response) => {
    const message = { status: response.statusCode, body: [], whole: false };
    messages.push(message);
    response.on('data', (chunk) => message.body.push(chunk));
    response.on('end', () => { message.whole = response.complete; });
    response.on('error', (refused) => { error = refused.code || refused.message; });
    response.on('close', finish);
  });
  request.on('error', (refused) => { error = refused.code || refused.message; finish(); });
  request.on('upgrade', (head) => { messages.push({ status: head.statusCode, body: [], whole: true }); finish(); });
  request.end();
}

let queue = Promise.resolve();
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  queue = queue.then(() => new Promise((next) => {
    const [role, method, text] = line.split(' ');
    const data = text === '-' ? Buffer.alloc(0) : Buffer.from(text, 'hex');
    const done = (read) => {
      for (const message of read.messages) message.body = Buffer.concat(message.body).toString('hex');
      process.stdout.write(JSON.stringify(read) + '\n');
      next();
    };
    if (role === 'server') requests(data, done); else answers(method, data, done);
  }));
});

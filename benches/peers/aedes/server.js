// aedes in memory, one listener with TLS and one without.
//
//     node server.js TLS_PORT PLAIN_PORT CERTIFICATE KEY

import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'

import { Aedes } from 'aedes'

const HOST = '127.0.0.1'
const BACKLOG = 4096

const [tlsPort, plainPort, certificate, key] = process.argv.slice(2)

const broker = await Aedes.createBroker()
const security = {
  cert: readFileSync(certificate),
  key: readFileSync(key),
  minVersion: 'TLSv1.3',
  noDelay: true
}
tls.createServer(security, broker.handle).listen({ port: Number(tlsPort), host: HOST, backlog: BACKLOG })
net.createServer({ noDelay: true }, broker.handle).listen({ port: Number(plainPort), host: HOST, backlog: BACKLOG })

// MQTT.js against a broker; argument and output as in paho_client.py.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import assert from 'node:assert/strict'
import mqtt from 'mqtt'

const SOON = 20_000
const SESSION_SECONDS = 3600

class Phone {
  constructor(config, user, { device = '', lasting = false, will } = {}) {
    const url = config.path
      ? `wss://${config.host}:${config.port}${config.path}`
      : `mqtts://${config.host}:${config.port}`
    const properties = lasting && config.version === 5 ? { sessionExpiryInterval: SESSION_SECONDS } : undefined
    this.messages = []
    this.heard = () => {}
    this.client = mqtt.connect(url, {
      protocolVersion: config.version,
      clientId: `${user}/${config.device}${device}`,
      username: `${user}@demo`,
      password: config.passwords[user],
      ca: readFileSync(config.ca),
      clean: !lasting,
      keepalive: 30,
      reconnectPeriod: 0,
      properties,
      will
    })
    this.client.on('message', (topic, payload, { qos, retain }) => {
      this.messages.push({ payload: payload.toString(), qos, retain })
      this.heard()
    })
  }

  // Whether the session was there.
  async connected() {
    const [connack] = await once(this.client, 'connect', { signal: AbortSignal.timeout(SOON) })
    return connack.sessionPresent
  }

  async subscribe(topic) {
    const [granted] = await this.client.subscribeAsync(topic, { qos: 2 })
    assert.equal(granted.qos, 2)
  }

  async publish(topic, payload, qos, retain = false) {
    await this.client.publishAsync(topic, payload, { qos, retain })
  }

  async expect(payload, qos, retain = false) {
    if (this.messages.length === 0) {
      await new Promise((resolve, reject) => {
        const patience = setTimeout(() => reject(new Error(`waited in vain for ${payload}`)), SOON)
        this.heard = () => {
          clearTimeout(patience)
          resolve()
        }
      })
    }
    assert.deepEqual(this.messages.shift(), { payload, qos, retain })
  }

  async end() {
    await this.client.endAsync()
  }
}

async function main(config) {
  const topic = `c/${config.conversation}/m`
  if (config.dies) {
    const will = { topic, payload: Buffer.from('last will'), qos: 1, retain: false }
    await new Phone(config, 'alice', { device: '-tablet', will }).connected()
    console.log('connected')
    return
  }
  let bob = new Phone(config, 'bob', { lasting: true })
  assert.equal(await bob.connected(), false)
  await bob.subscribe('c/+/m')
  const alice = new Phone(config, 'alice')
  await alice.connected()
  for (const qos of [0, 1, 2]) {
    await alice.publish(topic, `of ${qos}`, qos)
    await bob.expect(`of ${qos}`, qos)
    console.log('qos', qos)
  }

  const pinned = `c/${config.conversation}/pinned`
  await alice.publish(pinned, 'kept', 1, true)
  const carol = new Phone(config, 'carol')
  await carol.connected()
  await carol.subscribe(pinned)
  await carol.expect('kept', 1, true)
  await alice.publish(pinned, '', 1, true)
  await carol.end()
  console.log('retained')

  const dying = spawn(process.execPath, [
    fileURLToPath(import.meta.url), JSON.stringify({ ...config, dies: true })
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [said] = await once(dying.stdout, 'data', { signal: AbortSignal.timeout(SOON) })
  assert.equal(said.toString(), 'connected\n')
  dying.kill('SIGKILL')
  await bob.expect('last will', 1)
  console.log('will')

  await bob.end()
  for (let number = 0; number < 3; number++) await alice.publish(topic, `missed ${number}`, 1)
  bob = new Phone(config, 'bob', { lasting: true })
  assert.equal(await bob.connected(), true)
  for (let number = 0; number < 3; number++) await bob.expect(`missed ${number}`, 1)
  await alice.publish(topic, 'and live again', 2)
  await bob.expect('and live again', 2)
  await bob.end()
  await alice.end()
  console.log('missed')
}

await main(JSON.parse(process.argv[2]))

// Use a server with the official OpenAI client for Node: node openai_client.mjs OPENAI_PACKAGE BASE_URL KEY FILE
// Prints one JSON object with what the client has read.
import { createReadStream } from 'node:fs'
import { createRequire } from 'node:module'

const [, , modules, baseURL, apiKey, file] = process.argv
const OpenAI = createRequire(`${modules}/`)('openai')
const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 })

const result = {}
const models = await client.models.list()
result.models = models.data.map((model) => model.id)
const speech = await client.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'Hi there', response_format: 'wav' })
result.speech = Buffer.from(await speech.arrayBuffer()).toString('latin1', 0, 4)
const transcript = await client.audio.transcriptions.create({ model: 'whisper-1', file: createReadStream(file) })
result.text = transcript.text
const verbose = await client.audio.transcriptions.create({
  model: 'whisper-1', file: createReadStream(file), response_format: 'verbose_json', timestamp_granularities: ['word', 'segment']
})
result.words = verbose.words.length
result.segments = verbose.segments.length
if (result.models.includes('gpt-audio-1.5')) {
  let deltas = ''
  const events = await client.audio.transcriptions.create({ model: 'gpt-4o-transcribe', file: createReadStream(file), stream: true })
  for await (const event of events) if (event.type === 'transcript.text.delta') deltas += event.delta
  result.deltas = deltas
  const chat = await client.chat.completions.create({ model: 'gpt-audio-1.5', messages: [{ role: 'user', content: 'Hi' }] })
  result.chat = chat.choices[0].message.content
}
try {
  await client.audio.speech.create({ model: 'no-such-model', voice: 'alloy', input: 'x' })
} catch (error) {
  result.error = { name: error.constructor.name, status: error.status, code: error.code }
}
console.log(JSON.stringify(result))

// What the page does: hash, store, read, remember. It asks nobody but the service that it is from.

const LIMIT = Number(document.body.dataset.limit); // bytes
const PATIENCE = 30_000; // milliseconds until a service that does not answer counts as gone
const HERE = location.href.split(/[?#]/)[0];
const REMEMBERED = 8; // messages
const SHOWN = 100_000; // characters of a message that are put on the screen

const part = (id) => document.getElementById(id);

/** A failure that `message` explains to the person in front of the page. */
class Fault extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

// --- SHA-256 --------------------------------------------------------------------------------

/** The SHA-256 of bytes, as 64 hexadecimal digits. */
async function sha256(bytes) {
  const native = globalThis.crypto?.subtle; // browsers offer it on https and localhost only
  const hash = native ? new Uint8Array(await native.digest("SHA-256", bytes)) : computed(bytes);
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// FIPS 180-4. The constants are the first 32 bits of the fractions of the primes' roots.
const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
const fraction = (root) => ((root % 1) * 2 ** 32) >>> 0;
const ROUNDS = Uint32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));
const START = Uint32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

const turned = (word, by) => (word >>> by) | (word << (32 - by));

/** The SHA-256 of bytes, if the browser offers none. */
function computed(bytes) {
  const blocks = padded(bytes);
  const state = START.slice();
  const words = new Uint32Array(64);
  for (let at = 0; at < blocks.byteLength; at += 64) {
    schedule(blocks, at, words);
    compress(state, words);
  }
  const hash = new DataView(new ArrayBuffer(32));
  state.forEach((word, index) => hash.setUint32(4 * index, word));
  return new Uint8Array(hash.buffer);
}

/** The bytes, a one bit, zeros, and the length in bits, in whole blocks of 64 bytes. */
function padded(bytes) {
  const blocks = new DataView(new ArrayBuffer(64 * Math.ceil((bytes.length + 9) / 64)));
  new Uint8Array(blocks.buffer).set(bytes);
  blocks.setUint8(bytes.length, 0x80);
  blocks.setBigUint64(blocks.byteLength - 8, 8n * BigInt(bytes.length));
  return blocks;
}

function schedule(blocks, at, words) {
  for (let i = 0; i < 16; i++) words[i] = blocks.getUint32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const [near, far] = [words[i - 2], words[i - 15]];
    const low = turned(far, 7) ^ turned(far, 18) ^ (far >>> 3);
    const high = turned(near, 17) ^ turned(near, 19) ^ (near >>> 10);
    words[i] = words[i - 16] + low + words[i - 7] + high;
  }
}

function compress(state, words) {
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const choice = (e & f) ^ (~e & g);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + choice + ROUNDS[i] + words[i];
    const two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority;
    [a, b, c, d, e, f, g, h] = [(one + two) | 0, a, b, c, (d + one) | 0, e, f, g];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => { state[index] += word; });
}

// --- What is shown --------------------------------------------------------------------------

/** Show a digest in eight groups, which copy as one word, and as a line of 64 bars. */
function showDigest(digest, id) {
  const groups = (digest.match(/.{8}/g) ?? []).map((text) => {
    const group = document.createElement("span");
    group.textContent = text;
    return group;
  });
  part(id).replaceChildren(...groups);
  const bars = Array.from(digest, bar).join("");
  part(id).parentElement.querySelector("path").setAttribute("d", bars);
}

/** One digit as a stroke above its place: 10 wide, with a gap after each group. */
function bar(digit, at) {
  return `M${10 * (at + Math.floor(at / 8)) + 5} 34v-${4 + 2 * parseInt(digit, 16)}`;
}

/** Say a sentence where a screen reader hears it too; `tone` is "", "good" or "bad". */
function say(id, sentence, tone = "") {
  part(id).textContent = sentence;
  part(id).dataset.tone = tone;
}

function sized(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"}`;
}

function tooLong(what, size) {
  return `${what} is ${sized(size)} long, and this service takes messages of up to ${sized(LIMIT)}.`;
}

/** Copy a text; if the browser forbids it, select the link for the person to copy. */
async function copy(text, button) {
  const label = button.dataset.label ??= button.textContent;
  const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  button.textContent = done || copiedByCommand(text) ? "Copied" : "Copy it by hand, please";
  setTimeout(() => { button.textContent = label; }, 2000);
}

/** The way of browsers that have no clipboard on plain http. */
function copiedByCommand(text) {
  const before = document.activeElement;
  const carrier = document.createElement("textarea");
  carrier.value = text;
  carrier.className = "carrier";
  document.body.append(carrier);
  carrier.select();
  const done = document.execCommand("copy");
  carrier.remove();
  before?.focus();
  return done;
}

// --- The service ----------------------------------------------------------------------------

/** The body of the service's answer; Fault if there is none, or it is an error. */
async function ask(path, request = {}) {
  let answer, body;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    answer = await fetch(path, { cache: "no-store", redirect: "error", signal, ...request });
    body = new Uint8Array(await answer.arrayBuffer());
  } catch {
    throw new Fault("The service cannot be reached. Nothing is lost: try again in a moment.");
  }
  if (!answer.ok) throw new Fault(sentence(answer.status, decoded(body)), answer.status);
  return body;
}

/** The sentence in an error of the service's, or one for what a proxy said in its place. */
function sentence(status, body) {
  return field(body, "error")
    ?? `A proxy in front of the service answered with status ${status}.`;
}

/** A text in the JSON object `body`; null if it is missing, or `body` is something else. */
function field(body, name) {
  try {
    const value = JSON.parse(body)[name];
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

function decoded(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

// --- What this browser keeps ----------------------------------------------------------------

/** What was kept under a name; null if there is nothing, or the browser keeps nothing. */
function kept(storage, name) {
  try {
    return JSON.parse(window[storage].getItem(name));
  } catch {
    return null;
  }
}

function keep(storage, name, value) {
  try {
    window[storage].setItem(name, JSON.stringify(value));
  } catch {
    // Storing and reading work all the same.
  }
}

let token = kept("sessionStorage", "hasher.token") ?? "";

function recent() {
  const list = kept("localStorage", "hasher.recent");
  return Array.isArray(list) ? list.filter((entry) => /^[0-9a-f]{64}$/.test(entry?.digest)) : [];
}

function remember(digest, bytes) {
  const start = Array.from(decoded(bytes.subarray(0, 400))).slice(0, 80).join("");
  const others = recent().filter((entry) => entry.digest !== digest);
  keep("localStorage", "hasher.recent", [{ digest, start }, ...others].slice(0, REMEMBERED));
  showRecent();
}

function showRecent() {
  const items = recent().map(({ digest, start }) => {
    const [item, link, name] = ["li", "a", "code"].map((tag) => document.createElement(tag));
    link.href = `#${digest}`;
    link.textContent = String(start).trim() || "(no visible text)";
    name.textContent = digest.slice(0, 8);
    item.append(link, name);
    return item;
  });
  part("recent").replaceChildren(...items);
  part("recent-none").hidden = items.length > 0;
  part("forget").hidden = items.length === 0;
}

function forget() {
  keep("localStorage", "hasher.recent", []);
  showRecent();
  part("recent-title").focus();
}

// --- To store -------------------------------------------------------------------------------

// The message as it would be stored now. `fault` says why it cannot be; `digest` is a promise.
let draft;
let file = null; // the bytes of a file that was taken, which go in the place of what was typed

/** Make what stands on the page the message to store, and show its size and digest. */
async function weigh() {
  const bytes = file ?? new TextEncoder().encode(part("text").value);
  const mine = draft = { bytes, fault: file ? "" : faultOf(part("text").value, bytes.length) };
  mine.digest = mine.fault ? Promise.resolve("") : sha256(bytes);
  part("stored").hidden = true;
  say("write-said", mine.fault, "bad");
  part("size").textContent = sized(bytes.length);
  const digest = await mine.digest;
  if (mine === draft) showDigest(digest, "digest");
}

function faultOf(text, size) {
  if (size > LIMIT) return tooLong("The text", size);
  if (!/\p{Surrogate}/u.test(text)) return "";
  return "The text has half a character (a lone surrogate), which UTF-8 cannot encode. Remove it.";
}

/** Take a file for the message, unless it cannot be one. */
async function takeFile(taken) {
  try {
    file = await bytesOf(taken);
  } catch (fault) {
    return say("write-said", told(fault), "bad");
  }
  part("file-name").textContent = taken.name;
  part("file-start").textContent = decoded(file.subarray(0, 2000));
  showFile(true);
  part("file-name").focus();
}

async function bytesOf(taken) {
  if (taken.size > LIMIT) throw new Fault(tooLong(taken.name, taken.size));
  const bytes = await taken.arrayBuffer().then((buffer) => new Uint8Array(buffer), () => null);
  if (!bytes) throw new Fault(`${taken.name} could not be read.`);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Fault(`${taken.name} is not text in UTF-8, and messages are text.`);
  }
  return bytes;
}

function removeFile() {
  file = null;
  showFile(false);
  part("text").focus();
}

function showFile(shown) {
  part("file").hidden = !shown;
  part("typed").hidden = shown;
  weigh();
}

/** Store the message, and show the link to it. */
async function store() {
  const { bytes, fault, digest } = draft;
  if (fault) return say("write-said", fault, "bad");
  say("write-said", "Storing…");
  try {
    await post(bytes, await digest);
  } catch (fault) {
    if (fault.status === 401) return askForToken();
    return say("write-said", told(fault), "bad");
  }
  part("token-form").hidden = true;
  part("link").value = `${HERE}#${await digest}`;
  part("stored").hidden = false;
  say("write-said", "Stored. Anyone who has the link can read the message.", "good");
  remember(await digest, bytes);
}

/** Store bytes; Fault unless the service confirms their digest. */
async function post(bytes, digest) {
  const headers = { "Content-Type": "text/plain; charset=utf-8" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = await ask("messages", { method: "POST", headers, body: bytes });
  if (field(decoded(body), "digest") === digest) return;
  throw new Fault("The service did not confirm this digest: do not rely on it.");
}

function askForToken() {
  const refused = "The service did not accept this token.";
  say("write-said", token ? refused : "To store here, you need a token.", "bad");
  part("token-form").hidden = false;
  part("token").select();
}

function useToken() {
  const given = part("token").value.trim();
  if (!/^[!-~]+$/.test(given)) return say("write-said", "A token has neither spaces nor accents.", "bad");
  token = given;
  keep("sessionStorage", "hasher.token", token);
  return store();
}

function told(fault) {
  if (!(fault instanceof Fault)) throw fault;
  return fault.message;
}

// --- To read --------------------------------------------------------------------------------

let wanted = ""; // the digest that is being read
let text = ""; // the message on the screen

/** Go to the message whose digest, or link, was pasted. */
function find() {
  const given = part("wanted").value.replace(/\s/g, "").toLowerCase();
  const digest = /(?:^|[^0-9a-f])([0-9a-f]{64})(?![0-9a-f])/.exec(given)?.[1];
  if (!digest) return refuse("This is not a digest. A digest has 64 characters, 0 to 9 and a to f.");
  if (location.hash === `#${digest}`) return read(digest);
  location.hash = digest; // and the page opens it
}

/** Open the message that the address names, if it names one. */
async function open() {
  const name = location.hash.slice(1);
  if (!name) return;
  part("wanted").value = name;
  part("read-title").scrollIntoView();
  await find();
  part("read-title").scrollIntoView(); // which only now may have enough below it
}

async function read(digest) {
  wanted = digest;
  part("message").hidden = true;
  say("read-said", "Reading…");
  try {
    const bytes = await verified(digest);
    if (wanted === digest) showMessage(digest, bytes);
  } catch (fault) {
    if (wanted === digest) refuse(told(fault));
  }
}

/** The message under a digest, hashed here; Fault if it is not the one that was asked for. */
async function verified(digest) {
  let bytes;
  try {
    bytes = await ask(`messages/${digest}.txt`);
  } catch (fault) {
    if (fault.status !== 404) throw fault;
    throw new Fault("No message with this digest is stored here.", 404);
  }
  const came = await sha256(bytes);
  if (came === digest) return bytes;
  throw new Fault(`Not verified, and not shown: the service returned another message, with the SHA-256 ${came}.`);
}

function showMessage(digest, bytes) {
  text = decoded(bytes);
  showDigest(digest, "read-digest");
  part("content").textContent = text.slice(0, SHOWN);
  part("cut").hidden = text.length <= SHOWN;
  part("cut").textContent = `This is the start. The download has all of the ${sized(bytes.length)}.`;
  part("download").href = `messages/${digest}.txt`;
  part("download").download = `${digest.slice(0, 8)}.txt`;
  part("message").hidden = false;
  document.title = `${digest.slice(0, 8)} · hasher`;
  say("read-said", `Verified: your browser hashed the ${sized(bytes.length)} that came back, and this is their digest.`, "good");
}

function refuse(sentence) {
  part("message").hidden = true;
  document.title = "hasher";
  say("read-said", sentence, "bad");
}

// --- What a person does ---------------------------------------------------------------------

function on(id, event, act) {
  part(id).addEventListener(event, (happened) => {
    happened.preventDefault();
    act(happened);
  });
}

function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

part("text").addEventListener("input", weigh);
part("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) store();
});
on("write", "submit", store);
on("token-form", "submit", useToken);
on("choose", "click", () => part("chosen").click());
part("chosen").addEventListener("change", ({ target }) => {
  if (target.files.length) takeFile(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
on("file-remove", "click", removeFile);
on("link-copy", "click", ({ target }) => copy(part("link").value, target));
on("link", "focus", ({ target }) => target.select());
on("read", "submit", find);
on("content-copy", "click", ({ target }) => copy(text, target));
on("forget", "click", forget);
addEventListener("hashchange", open);
addEventListener("storage", showRecent);

for (const event of ["dragover", "dragleave", "drop"]) {
  addEventListener(event, (dragged) => {
    if (!carriesFiles(dragged)) return;
    dragged.preventDefault();
    document.body.classList.toggle("dropping", event === "dragover");
    if (event === "drop") takeFile(dragged.dataTransfer.files[0]);
  });
}

weigh();
showRecent();
open();

// A chat with the server that this page comes from. Nothing is stored: the conversation and the key are gone
// with the page. What the model writes becomes text nodes (markdown.js), never HTML.

import { make, render } from "./markdown.js";

const RATE = 16000; // Hz of what is sent: most models hear it without being converted
const $ = (id) => document.getElementById(id);

let key = "";
let talk = []; // the messages of the conversation, as the server takes them
let attached = []; // pictures and sound of the next message: {name, url, part}
let stopping = null; // of the answer that is being written
let recorder = null;

// ---- the server

class Refused extends Error {}

async function call(path, options = {}) {
  for (let wasAsked = false; ; wasAsked = true) {
    const headers = options.body ? { "Content-Type": "application/json" } : {};
    if (key) headers.Authorization = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Refused("The server cannot be reached.");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw new Refused(await reason(response));
    await unlock(wasAsked || key ? "That is not the key of this server." : "This server asks for its key.");
  }
}

async function reason(response) {
  const wait = response.headers.get("Retry-After");
  const later = wait && response.status === 429 ? ` (in ${wait} s)` : "";
  try {
    return (await response.json()).error.message + later;
  } catch {
    return `The server answers with status ${response.status}${later}.`;
  }
}

function unlock(text) {
  $("asks").textContent = text;
  $("key").value = "";
  $("keyring").returnValue = "";
  $("keyring").showModal();
  return new Promise((resolve, reject) => {
    $("keyring").addEventListener("close", () => {
      key = $("key").value;
      $("key").value = "";
      if ($("keyring").returnValue === "use" && key) resolve();
      else reject(new Refused("The server answers only with its key."));
    }, { once: true });
  });
}

async function listModels() {
  const models = await (await call("v1/models", { signal: stopping?.signal })).json();
  $("model").replaceChildren(...models.data.map(({ id }) => new Option(id, id)));
}

// The events of an answer; it is broken off where the last one is missing.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Refused("The answer has been broken off.");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts.filter((each) => each.startsWith("data: "))) {
      const data = part.slice(6);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(event.error.message);
      yield event;
    }
  }
}

// ---- the conversation

function request() {
  const body = { model: $("model").value, messages: [...talk], stream: true, stream_options: { include_usage: true } };
  const system = $("system").value.trim();
  if (system) body.messages.unshift({ role: "system", content: system });
  for (const [id, field] of [["temperature", "temperature"], ["max-tokens", "max_tokens"]]) {
    const number = $(id).valueAsNumber;
    if (!Number.isNaN(number)) body[field] = number;
  }
  return JSON.stringify(body);
}

async function send() {
  const text = $("text").value.trim();
  if (stopping || recorder || (!text && !attached.length)) return;
  for (const id of ["temperature", "max-tokens"]) {
    if (!$(id).checkValidity()) {
      $("settings").open = true;
      $(id).reportValidity();
      return;
    }
  }
  const media = attached;
  const content = media.map((each) => each.part);
  if (text) content.push({ type: "text", text });
  talk.push({ role: "user", content: media.length ? content : text });
  const mine = bubble("user", "You", ...media.map(shown), make("div", text));
  mine.lastChild.className = "plain";
  $("text").value = "";
  attached = [];
  showAttached();
  if (!(await answer())) { // as before, so that it can be sent again
    talk.pop();
    mine.remove();
    if (!$("text").value) $("text").value = text;
    attached = [...media, ...attached];
    showAttached();
  }
}

// Asks for an answer and writes it down; false where there is none.
async function answer() {
  stopping = new AbortController();
  busy(true);
  const clock = { start: performance.now(), pieces: 0 };
  let node = null;
  let content = "";
  let thinking = "";
  try {
    if (!$("model").value) await listModels();
    const response = await call("v1/chat/completions", { method: "POST", body: request(), signal: stopping.signal });
    node = writing();
    for await (const event of events(response)) {
      clock.usage = event.usage ?? clock.usage;
      const [choice] = event.choices;
      clock.ending = choice?.finish_reason ?? clock.ending;
      const { content: more, reasoning_content: thought } = choice?.delta ?? {};
      if (!more && !thought) continue;
      content += more ?? "";
      thinking += thought ?? "";
      clock.first ??= performance.now();
      clock.last = performance.now();
      clock.pieces++;
      node.show(content, thinking);
    }
  } catch (error) {
    if (error.name === "AbortError") clock.ending = "stopped";
    else fail(error);
  }
  const isThere = Boolean(content || thinking || clock.usage);
  if (isThere) {
    talk.push({ role: "assistant", content });
    node.end(content, thinking, facts(clock));
  } else {
    node?.remove();
  }
  stopping = null;
  busy(false);
  return isThere;
}

function facts({ usage, ending, start, first, last, pieces }) {
  const count = usage?.completion_tokens ?? pieces;
  const said = [`${usage ? "" : "about "}${count} tokens`];
  const rate = ((count - 1) * 1000) / (last - first);
  if (count > 1 && last > first) said.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens per second`);
  if (first) said.push(`the first after ${((first - start) / 1000).toFixed(2)} s`);
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  if (usage) said.push(`prompt of ${usage.prompt_tokens}${cached ? `, ${cached} of them known` : ""}`);
  if (ending === "stopped") said.push("stopped");
  if (ending === "length") said.push("cut short by a limit");
  return said.join(" · ");
}

function busy(is) {
  $("log").setAttribute("aria-busy", is); // read out once it is whole, not piece by piece
  $("status").textContent = is ? "Answering" : "";
  if (is) $("error").textContent = "";
  const hadFocus = [$("send"), $("stop"), document.body].includes(document.activeElement);
  $("send").hidden = is;
  $("stop").hidden = !is;
  $("new").disabled = is;
  if (hadFocus) $(is ? "stop" : "text").focus();
}

function bubble(kind, who, ...children) {
  const node = make("article", make("h2", who), ...children);
  node.className = kind;
  $("log").append(node);
  $("log").scrollTop = $("log").scrollHeight;
  return node;
}

// An answer that is being written: what has come is shown once in a frame.
function writing() {
  const text = make("div");
  const thoughts = make("div");
  const details = make("details", make("summary", "Thinking"), thoughts);
  details.className = "thinking";
  details.hidden = true;
  const node = bubble("assistant", $("model").value, details, text);
  let next = null;
  const draw = () => {
    const log = $("log");
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    render(text, next[0]);
    render(thoughts, next[1]);
    details.hidden = !next[1];
    next = null;
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  };
  return {
    show(...what) {
      if (!next) requestAnimationFrame(() => next && draw());
      next = what;
    },
    end(content, thinking, line) {
      next = [content, thinking];
      draw();
      const last = make("p", line);
      last.className = "facts";
      node.append(last);
      $("log").scrollTop = $("log").scrollHeight;
    },
    remove: () => node.remove(),
  };
}

function fail(error) {
  $("error").textContent = error instanceof Refused ? error.message : String(error);
}

// ---- pictures and sound

async function add(files) {
  for (const file of files) {
    try {
      attached.push(file.type.startsWith("image/") ? await picture(file) : await sound(file, file.name));
    } catch {
      fail(new Refused(`${file.name} is neither a picture nor sound that this browser reads.`));
    }
  }
  showAttached();
}

async function picture(file) {
  const url = await read(file);
  return { name: file.name, url: URL.createObjectURL(file), part: { type: "image_url", image_url: { url } } };
}

async function sound(blob, name) {
  const context = new OfflineAudioContext(1, 1, RATE); // decodes to its own rate
  const wav = toWav(await context.decodeAudioData(await blob.arrayBuffer()));
  const data = (await read(wav)).split(",")[1];
  return { name, url: URL.createObjectURL(wav), part: { type: "input_audio", input_audio: { data, format: "wav" } } };
}

function toWav(audio) {
  const view = new DataView(new ArrayBuffer(44 + 2 * audio.length));
  const word = (at, text) => [...text].forEach((each, i) => view.setUint8(at + i, each.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * audio.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * audio.length, true);
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  for (let i = 0; i < audio.length; i++) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, mean))), true);
  }
  return new Blob([view], { type: "audio/wav" });
}

function read(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function record() {
  if (recorder) {
    if (recorder.state === "recording") recorder.stop();
    return;
  }
  if (!navigator.mediaDevices) {
    fail(new Refused("Browsers lend the microphone only to pages of this machine or over https."));
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    recorder = new MediaRecorder(stream);
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = async () => {
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      recording(false);
      await add([new File(parts, "Recording", { type: "audio/webm" })]);
    };
    recorder.start();
    recording(true);
  } catch (error) {
    fail(new Refused(`The microphone cannot be used: ${error.message}`));
  }
}

function recording(is) {
  $("record").setAttribute("aria-pressed", is);
  $("record").textContent = is ? "Stop recording" : "Record";
  $("status").textContent = is ? "Recording" : "";
}

function shown({ name, url, part }) {
  const node = document.createElement(part.type === "image_url" ? "img" : "audio");
  node.src = url;
  if (part.type === "image_url") node.alt = name;
  else node.controls = true;
  return node;
}

function showAttached() {
  $("attached").replaceChildren(...attached.map((each) => {
    const remove = make("button", "Remove");
    remove.type = "button";
    remove.ariaLabel = `Remove ${each.name}`;
    remove.onclick = () => {
      attached = attached.filter((other) => other !== each);
      URL.revokeObjectURL(each.url);
      showAttached();
      $("text").focus();
    };
    return make("li", shown(each), `${each.name} `, remove);
  }));
}

// ---- the page

$("form").onsubmit = (event) => {
  event.preventDefault();
  send();
};
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
};
$("stop").onclick = () => stopping?.abort();
document.onkeydown = (event) => {
  if (event.key === "Escape") stopping?.abort();
};
$("new").onclick = () => {
  talk = [];
  for (const node of $("log").querySelectorAll("[src]")) URL.revokeObjectURL(node.src);
  $("log").replaceChildren();
  $("error").textContent = "";
  $("text").focus();
};
$("unlock").onsubmit = (event) => {
  event.preventDefault();
  $("keyring").close("use");
};
$("record").onclick = record;
$("add").onclick = () => $("files").click();
$("files").onchange = async () => {
  await add([...$("files").files]);
  $("files").value = "";
};
document.onpaste = (event) => {
  if (event.clipboardData.files.length) add([...event.clipboardData.files]);
};
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = () => document.body.classList.remove("dropping");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
};

listModels().catch(fail);

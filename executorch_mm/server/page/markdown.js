// Markdown as DOM nodes. Text only ever becomes text nodes, so whatever a model writes stays text; links are
// those of http and https. Every step takes time that is linear in the text, and nesting is bounded.

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^( {0,3}(?:[-*+]|(\d{1,9})[.)])[ \t]+)(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const LINK = /!?\[([^[\]]*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:[ \t]+"[^"]*")?\)/y;
const ADDRESS = /https?:\/\/[^\s<>"`]{1,2000}/y;
const WORD = /[\p{L}\p{N}_]/u;
const DEEPEST = 6;

export function make(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

// Shows `text` in `target`; of what is there already, blocks that have not changed stay as they are.
const sources = new WeakMap();
export function render(target, text) {
  const blocks = split(text.split("\n"));
  let same = 0;
  while (same < blocks.length && sources.get(target.childNodes[same]) === blocks[same].join("\n")) same++;
  while (target.childNodes.length > same) target.lastChild.remove();
  for (const lines of blocks.slice(same)) {
    const node = block(lines, 0);
    sources.set(node, lines.join("\n"));
    target.append(node);
  }
}

// Lines, in groups of one block each.
function split(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    let end = at + 1;
    const fence = FENCE.exec(lines[at]);
    if (!lines[at].trim()) {
      at = end;
      continue;
    }
    if (fence) {
      while (end < lines.length && !closes(lines[end], fence[1])) end++;
      end++;
    } else if (QUOTE.test(lines[at])) {
      while (end < lines.length && QUOTE.test(lines[end])) end++;
    } else if (isItem(lines[at])) {
      while (end < lines.length && goesOn(lines, end)) end++;
    } else if (isTable(lines, at)) {
      while (end < lines.length && lines[end].includes("|")) end++;
    } else if (!HEADING.test(lines[at]) && !RULE.test(lines[at])) {
      while (end < lines.length && lines[end].trim() && !begins(lines, end)) end++;
    }
    blocks.push(lines.slice(at, end));
    at = end;
  }
  return blocks;
}

function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function isItem(line) {
  return ITEM.test(line) && !RULE.test(line);
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1]);
}

function begins(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || isItem(line) || isTable(lines, at);
}

// Whether a list goes on: another item, something indented, or the rest of an item's paragraph.
function goesOn(lines, at) {
  const line = lines[at];
  if (!line.trim()) return at + 1 < lines.length && (isItem(lines[at + 1]) || /^\s+\S/.test(lines[at + 1]));
  return isItem(line) || /^\s/.test(line) || (Boolean(lines[at - 1].trim()) && !begins(lines, at));
}

function block(lines, depth) {
  const [first] = lines;
  const fence = FENCE.exec(first);
  if (fence) {
    const isClosed = lines.length > 1 && closes(lines.at(-1), fence[1]);
    const pre = make("pre", make("code", lines.slice(1, isClosed ? -1 : undefined).join("\n")));
    pre.tabIndex = 0; // so that the keyboard scrolls it
    return pre;
  }
  if (RULE.test(first)) return make("hr");
  const heading = HEADING.exec(first);
  if (heading) return make(`h${Math.min(heading[1].length + 2, 6)}`, ...inline(heading[2].replace(/[ \t]#+$/, ""), 0));
  if (depth < DEEPEST && QUOTE.test(first)) {
    return make("blockquote", ...nested(lines.map((line) => line.replace(QUOTE, "")), depth));
  }
  if (depth < DEEPEST && ITEM.test(first)) return list(lines, depth);
  if (isTable(lines, 0)) return table(lines);
  return make("p", ...inline(lines.join("\n").trim(), 0));
}

function nested(lines, depth) {
  return split(lines).map((each) => block(each, depth + 1));
}

function list(lines, depth) {
  const [, , number] = ITEM.exec(lines[0]);
  const node = make(number === undefined ? "ul" : "ol");
  if (number !== undefined) node.start = Number(number);
  let item = [];
  let indent = 0;
  const end = () => item.length && node.append(make("li", ...nested(item, depth)));
  for (const line of lines) {
    const found = isItem(line) ? ITEM.exec(line) : null;
    if (found && (!item.length || line.search(/\S/) < indent)) {
      end();
      item = [found[3]];
      indent = found[1].length;
    } else {
      item.push(line.slice(Math.min(indent, Math.max(line.search(/\S/), 0))));
    }
  }
  end();
  return node;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim(), 0));
  const row = (line, tag) => make("tr", ...cells(line).map((cell) => make(tag, ...cell)));
  const head = make("thead", row(lines[0], "th"));
  for (const cell of head.querySelectorAll("th")) cell.scope = "col";
  return make("table", head, make("tbody", ...lines.slice(2).map((line) => row(line, "td"))));
}

const STYLES = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

// The text of a block as nodes.
function inline(text, depth) {
  const nodes = [];
  const unclosed = new Set(); // marks without an end behind here: looked for once
  let plain = "";
  const put = (node, end) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
    return end;
  };
  for (let at = 0; at < text.length; ) {
    const next = styled(text, at, depth, unclosed) ?? code(text, at) ?? link(text, at) ?? address(text, at);
    if (next) {
      at = put(...next);
    } else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else if (text[at] === "`") { // a run without an end is text, as a whole
      const run = /`+/y;
      run.lastIndex = at;
      plain += run.exec(text)[0];
      at = run.lastIndex;
    } else {
      plain += text[at++];
    }
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function styled(text, at, depth, unclosed) {
  if (depth >= DEEPEST) return null;
  for (const [mark, tag] of STYLES) {
    if (!text.startsWith(mark, at) || unclosed.has(mark)) continue;
    const begin = at + mark.length;
    if (!/\S/.test(text[begin] ?? "") || (mark[0] === "_" && WORD.test(text[at - 1] ?? ""))) continue;
    let end = text.indexOf(mark, begin + 1);
    while (end !== -1 && !ends(text, end, mark)) end = text.indexOf(mark, end + 1);
    if (end === -1) {
      unclosed.add(mark);
      continue;
    }
    return [make(tag, ...inline(text.slice(begin, end), depth + 1)), end + mark.length];
  }
  return null;
}

function ends(text, at, mark) {
  if (/\s/.test(text[at - 1]) || text[at - 1] === "\\") return false;
  if (mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark)) return false;
  return mark[0] !== "_" || !WORD.test(text[at + mark.length] ?? "");
}

function code(text, at) {
  if (text[at] !== "`") return null;
  const run = /`+/y;
  run.lastIndex = at;
  const mark = run.exec(text)[0];
  let end = text.indexOf(mark, run.lastIndex);
  while (end !== -1 && text[end + mark.length] === "`") {
    while (text[end] === "`") end++;
    end = text.indexOf(mark, end);
  }
  return end === -1 ? null : [make("code", text.slice(run.lastIndex, end)), end + mark.length];
}

function link(text, at) {
  if (text[at] !== "[" && !(text[at] === "!" && text[at + 1] === "[")) return null;
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  const node = found && anchor(found[2], found[1] || found[2]);
  return node && [node, LINK.lastIndex];
}

function address(text, at) {
  if (text[at] !== "h" || WORD.test(text[at - 1] ?? "")) return null;
  ADDRESS.lastIndex = at;
  let [url] = ADDRESS.exec(text) ?? [""];
  while (/[.,;:!?'*\]}]/.test(url.at(-1) ?? "") || (url.endsWith(")") && isOpen(url))) url = url.slice(0, -1);
  const node = url && anchor(url, url);
  return node ? [node, at + url.length] : null;
}

// Whether the last parenthesis was opened before the address.
function isOpen(url) {
  return url.split("(").length < url.split(")").length;
}

// A link of http or https, with an address of its own; null for any other.
function anchor(address, text) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const node = make("a", text);
  node.href = url.href;
  node.title = url.href;
  node.rel = "noopener noreferrer nofollow";
  node.target = "_blank";
  return node;
}

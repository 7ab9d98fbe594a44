// A model's text as blocks: plain values, which render.js turns into elements.
//
// Read line by line, so that the time is that of the text's length whatever is in it, and so that a
// text whose end has not come yet reads as it will: a code block that is still open is one.

const FENCE = /^([ \t]*)(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(\S.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+)(\S.*)$/;
const DIVIDER = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$/;
const DEEPEST = 6; // lists and quotes inside one another; what is deeper stays text

/**
 * @typedef {{kind: "paragraph", text: string}
 *   | {kind: "heading", level: number, text: string}
 *   | {kind: "code", language: string, text: string}
 *   | {kind: "list", isOrdered: boolean, start: number, items: Block[][]}
 *   | {kind: "quote", blocks: Block[]}
 *   | {kind: "table", head: string[], rows: string[][]}
 *   | {kind: "rule"}} Block
 */

/** Return text as a list of blocks. */
export function parse(text, depth = 0) {
  const lines = text.split(/\r\n?|\n/);
  const found = [];
  let paragraph = [];
  const end = () => {
    if (paragraph.length) found.push({ kind: "paragraph", text: paragraph.join("\n") });
    paragraph = [];
  };
  for (let at = 0; at < lines.length; ) {
    const [block, next] = blockAt(lines, at, depth, paragraph.length > 0);
    if (block || !lines[at].trim()) end();
    if (block) found.push(block);
    else if (lines[at].trim()) paragraph.push(lines[at].trimEnd());
    at = next;
  }
  end();
  return found;
}

/** Return the block that begins at a line, or null, and the line after it. */
function blockAt(lines, at, depth, isInParagraph) {
  const line = lines[at];
  if (FENCE.test(line)) return code(lines, at);
  const [, marks, title] = HEADING.exec(line) ?? [];
  if (marks) return [{ kind: "heading", level: marks.length, text: title.trimEnd() }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (isTable(lines, at)) return table(lines, at);
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && beginsList(line, isInParagraph)) return list(lines, at, depth);
  return [null, at + 1];
}

function code(lines, at) {
  const [, indent, fence, info] = FENCE.exec(lines[at]);
  const [language] = info.trim().split(/\s/);
  const text = [];
  for (at += 1; at < lines.length; at += 1) {
    const line = lines[at].trim();
    if (line.length >= fence.length && line === fence[0].repeat(line.length)) {
      return [{ kind: "code", language, text: text.join("\n") }, at + 1];
    }
    text.push(dedent(lines[at], indent.length));
  }
  return [{ kind: "code", language, text: text.join("\n") }, at];
}

function quote(lines, at, depth) {
  const inside = [];
  for (; at < lines.length && QUOTE.test(lines[at]); at += 1) {
    inside.push(lines[at].replace(QUOTE, ""));
  }
  return [{ kind: "quote", blocks: parse(inside.join("\n"), depth + 1) }, at];
}

// A line that begins with a year and a period is no list, unless it stands alone.
function beginsList(line, isInParagraph) {
  const [, , marker] = ITEM.exec(line) ?? [];
  return marker && (!isInParagraph || !isNumber(marker) || parseInt(marker, 10) === 1);
}

function list(lines, at, depth) {
  const [, { length: indent }, first] = ITEM.exec(lines[at]);
  const isOrdered = isNumber(first);
  const items = [];
  let item = [];
  const end = () => items.push(parse(item.join("\n"), depth + 1));
  for (; at < lines.length; at += 1) {
    const found = ITEM.exec(lines[at]);
    if (found && found[1].length <= indent) {
      if (found[1].length < indent || isNumber(found[2]) !== isOrdered) break;
      if (item.length) end();
      item = [found[4]];
    } else if (!lines[at].trim() || indentOf(lines[at]) > indent) {
      item.push(dedent(lines[at], indent + first.length + 1));
    } else {
      break;
    }
  }
  end();
  return [{ kind: "list", isOrdered, start: parseInt(first, 10) || 0, items }, at];
}

function isTable(lines, at) {
  const [head, divider] = [lines[at], (lines[at + 1] ?? "").trim()];
  const isDivided = head.includes("|") && DIVIDER.test(divider);
  return isDivided && cells(head).length === cells(divider).length;
}

function table(lines, at) {
  const head = cells(lines[at]);
  const rows = [];
  for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) {
    const row = cells(lines[at]);
    rows.push(head.map((_, column) => row[column] ?? ""));
  }
  return [{ kind: "table", head, rows }, at];
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/([^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isNumber(marker) {
  return /^\d/.test(marker);
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function dedent(line, width) {
  return line.slice(Math.min(width, indentOf(line)));
}

// Renders the Markdown of API descriptions: paragraphs, lists, `code`, **bold** and [links](/).
"use strict";

const MARKS = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(((?:https?:\/|#|\/)[^)\s]*)\)/g;

function renderedLine(text) {
  const parts = [];
  let end = 0;
  for (const mark of text.matchAll(MARKS)) {
    const [whole, code, bold, label, href] = mark;
    parts.push(text.slice(end, mark.index));
    if (code) parts.push(element("code", { textContent: code }));
    else if (bold) parts.push(element("strong", { textContent: bold }));
    else parts.push(element("a", { href, textContent: label }));
    end = mark.index + whole.length;
  }
  return [...parts, text.slice(end)];
}

function rendered(markdown) {
  return markdown.trim().split(/\n\s*\n/).map((block) => {
    if (!/^[-*] /.test(block)) return element("p", {}, ...renderedLine(block));
    const entries = block.slice(2).split(/\n[-*] /);
    return element("ul", {}, ...entries.map((entry) => element("li", {}, ...renderedLine(entry))));
  });
}

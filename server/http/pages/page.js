// Helpers of all scripts.
"use strict";

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Shows a problem (an error or a text) in the element `where`; null hides it.
function show(where, problem) {
  $(where).textContent = problem ? problem.message ?? problem : "";
  $(where).hidden = !problem;
}

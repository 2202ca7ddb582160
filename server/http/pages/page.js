// What every script of a page needs.
"use strict";

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Says in the element `where` what went wrong; null: nothing did.
function show(where, problem) {
  $(where).textContent = problem ? problem.message ?? problem : "";
  $(where).hidden = !problem;
}

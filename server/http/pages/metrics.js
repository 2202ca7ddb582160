// Parses /metrics, which is in Prometheus' text format.
"use strict";

// Returns all series: { name, labels, value }.
function parsed(text) {
  return [...text.matchAll(/^cosyvoice_(\w+)\{(.*)\} (\S+)$/gm)].map(([, name, labels, value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, content]) => [label, content])),
    value: Number(value),
  }));
}

function total(series, name, selector = {}) {
  const matches = ({ labels }) => Object.entries(selector).every(([label, content]) => labels[label] === content);
  return series.filter((one) => one.name === name && matches(one)).reduce((sum, { value }) => sum + value, 0);
}

// Returns the differences between two scrapes. A counter that fell, because its process was restarted, gives 0.
function since(before, now) {
  const key = ({ name, labels }) => JSON.stringify([name, labels]);
  const old = new Map(before.map((one) => [key(one), one.value]));
  return now.map((one) => ({ ...one, value: Math.max(0, one.value - (old.get(key(one)) ?? 0)) }));
}

// Returns the quantile `share` of a histogram, interpolated between two bounds; null if it is empty.
function quantile(series, name, share) {
  const count = total(series, `${name}_count`);
  if (!count) return null;
  const bounds = [...new Set(series.filter((one) => one.name === `${name}_bucket`).map(({ labels }) => labels.le))]
    .map((le) => ({ bound: le === "+Inf" ? Infinity : Number(le), below: total(series, `${name}_bucket`, { le }) }))
    .sort((one, other) => one.bound - other.bound);
  let lower = { bound: 0, below: 0 };
  for (const upper of bounds) {
    if (upper.below >= share * count) {
      if (upper.bound === Infinity) return lower.bound;
      return lower.bound + (upper.bound - lower.bound) * (share * count - lower.below) / (upper.below - lower.below || 1);
    }
    lower = upper;
  }
  return lower.bound;
}

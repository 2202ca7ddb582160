// Event handlers: the form, the keys, and the animation of the waveform.
"use strict";

async function loadModel() {
  try {
    modelId = (await (await ask("/v1/models")).json()).data[0].id;
    $("model").textContent = modelId;
  } catch (error) {
    if (!needsKey) show("problem", error);
  }
  showCode();
}

function changed() {
  const over = tooLong();
  $("count").textContent = `${[...$("text").value].length} / ${facts.longestText}`;
  $("count").classList.toggle("over", over !== null);
  $("text").setAttribute("aria-invalid", String(over !== null));
  show("too-long", over);
  $("speed-shown").textContent = Number($("speed").value).toFixed(2);
  showCode();
}

function follow() {
  requestAnimationFrame(follow);
  if (speaking && player.dry) playOrBuffer();
  waveform.draw();
  if ($("play").textContent !== (player.playing ? "Pause" : "Play")) buttons();
}

onKey(() => {
  show("problem", null);
  loadModel();
  loadVoices();
});
$("speak-form").oninput = changed;
$("speak-form").onsubmit = (event) => { event.preventDefault(); speak(); };
$("stop").onclick = stop;
$("play").onclick = async () => { await player.toggle(); buttons(); };
$("volume").oninput = () => {
  player.volume = sample.volume = $("volume").valueAsNumber;
  remember("volume", $("volume").valueAsNumber);
};
$("volume").value = player.volume = recall("volume", 1);
document.onkeydown = (event) => {
  if ($("voice-dialog").open) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); speak(); }
  if (event.key === "Escape") stop();
};
changed();
loadModel();
loadVoices();
follow();

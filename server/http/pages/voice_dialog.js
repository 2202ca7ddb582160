// The dialog that adds a voice, from a file or the microphone.
"use strict";

const LONGEST_RECORDING = 30;    // seconds

let recorder = null;
let recording = null;  // Blob

function take(blob) {
  recording = blob;
  $("preview").hidden = !blob;
  if ($("preview").src) URL.revokeObjectURL($("preview").src);
  if (blob) $("preview").src = URL.createObjectURL(blob);
  else $("preview").removeAttribute("src");
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  show("voice-problem", null);
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    show("voice-problem", "Browsers record only on HTTPS pages and on localhost. Choose a file instead.");
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [], started = Date.now();
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const clock = setInterval(() => {
      const seconds = Math.floor((Date.now() - started) / 1000);
      $("record").textContent = `Stop (${seconds} s)`;
      if (seconds >= LONGEST_RECORDING - 1) recorder?.stop();
    }, 200);
    recorder.onstop = () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      $("record").textContent = "Record again";
      $("record").classList.remove("recording");
      take(new Blob(parts, { type: recorder.mimeType }));
      $("voice-file").value = "";
      recorder = null;
    };
    recorder.start();
    $("record").textContent = "Stop (0 s)";
    $("record").classList.add("recording");
  } catch (error) {
    recorder = null;
    show("voice-problem", `The microphone can't be used: ${error.message}`);
  }
}

async function saveVoice() {
  if (!recording) {
    show("voice-problem", "Choose a file or record a voice first.");
    return;
  }
  show("voice-problem", null);
  $("voice-save").disabled = true;
  const form = new FormData();
  form.set("name", $("voice-name").value.trim());
  form.set("ref_text", $("voice-transcript").value.trim());
  form.set("audio_sample", recording, recording.name ?? "recording");
  try {
    await addedVoice(await (await ask("/v1/audio/voices", { method: "POST", body: form })).json());
    $("voice-dialog").close();
  } catch (error) {
    show("voice-problem", error);
  } finally {
    $("voice-save").disabled = false;
  }
}

$("add-voice").onclick = () => {
  $("voice-form").reset();
  take(null);
  show("voice-problem", null);
  $("record").textContent = "Record";
  $("voice-dialog").showModal();
};
$("voice-file").onchange = () => { if ($("voice-file").files[0]) take($("voice-file").files[0]); };
$("record").onclick = record;
$("voice-form").onsubmit = (event) => { event.preventDefault(); saveVoice(); };
$("voice-cancel").onclick = () => $("voice-dialog").close();
$("voice-dialog").onclose = () => { recorder?.stop(); $("preview").pause(); };

// Saves the speech in a chosen format.
"use strict";

const FORMATS = {  // with a function: made from the player's audio; null: made by the server
  wav: () => wavFile(player.pieces, player.samples),
  mp3: null,
  opus: null,
  aac: null,
  flac: null,
  pcm: () => new Blob(player.pieces, { type: "audio/pcm" }),
};

function wavFile(pieces, samples) {
  const bytes = samples * 2;
  const header = new DataView(new ArrayBuffer(44));
  const words = (offset, text) => [...text].forEach((letter, i) => header.setUint8(offset + i, letter.charCodeAt(0)));
  words(0, "RIFF"); header.setUint32(4, 36 + bytes, true); words(8, "WAVEfmt "); header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); header.setUint16(22, 1, true);
  header.setUint32(24, SAMPLE_RATE, true); header.setUint32(28, SAMPLE_RATE * 2, true);
  header.setUint16(32, 2, true); header.setUint16(34, 16, true); words(36, "data"); header.setUint32(40, bytes, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}

async function download() {
  const format = $("format").value, name = fileName();
  show("download-problem", null);
  $("download").disabled = true;
  $("download").textContent = "Making the file…";
  try {
    const make = FORMATS[format] ?? (async () => (await ask("/v1/audio/speech", asJson({ ...lastSpoken, response_format: format }))).blob());
    const link = element("a", { href: URL.createObjectURL(await make()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    show("download-problem", error);
  } finally {
    $("download").textContent = "Download";
    buttons();
  }
}

$("format").append(...Object.keys(FORMATS).map((format) => new Option(format.toUpperCase(), format)));
$("format").onchange = () => {
  $("format-hint").hidden = FORMATS[$("format").value] !== null;
  showCode();
};
$("download").onclick = download;

// Example texts and instructions for the languages of the model.
"use strict";

const facts = JSON.parse($("facts").textContent);  // settings of the server

const LANGUAGES = {
  en: {
    name: "English",
    example: "The sun rose over the hills, and somewhere below a dog greeted the day as if nobody had ever done so before.",
    greeting: "Hello, this is how I sound.",
    presets: {
      Slow: "Speak slowly.", Fast: "Speak fast.", Happy: "Speak happily.", Sad: "Speak sadly.", Angry: "Speak angrily.", Soft: "Speak softly.",
    },
  },
  zh: {
    name: "中文",
    example: "清晨的阳光洒在山坡上，远处传来几声鸟叫，新的一天就这样开始了。",
    greeting: "你好，这是我的声音。",
    presets: { 四川话: "用四川话说这句话。", 粤语: "用粤语说这句话。" },
  },
  ja: {
    name: "日本語",
    example: "朝の光が丘を照らし、どこかで鳥が鳴いています。新しい一日の始まりです。",
    greeting: "こんにちは。これが私の声です。",
    presets: {},
  },
  ko: {
    name: "한국어",
    example: "아침 햇살이 언덕을 비추고, 멀리서 새들이 지저귀며 새로운 하루가 시작됩니다.",
    greeting: "안녕하세요. 이것이 제 목소리입니다.",
    presets: {},
  },
};
const modelLanguages = facts.languages.map((language) => ({ lang: language, ...LANGUAGES[language] }));

function fillButton(lang, label, field, text) {
  const button = element("button", { type: "button", lang, textContent: label });
  button.onclick = () => {
    $(field).value = text;
    changed();
    $(field).focus();
  };
  return button;
}

$("examples").append(...modelLanguages.map(({ lang, name, example }) => fillButton(lang, name, "text", example)));
$("presets").append(
  ...modelLanguages.flatMap(({ lang, presets }) => Object.entries(presets).map(([label, text]) => fillButton(lang, label, "instructions", text))),
  fillButton("en", "None", "instructions", ""),
);
$("instructions-hint").hidden = facts.followsInstructions;
$("text").value = modelLanguages[0].example;

// The photos that this person tried last, as the history has them.
"use strict";

const tryTrials = (() => {
  const { make } = desk;
  const COUNT = 10;
  const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZone: "UTC" });

  function row(trial, words) {
    const cell = (label, ...parts) => make("td", { "data-label": label }, ...parts);
    const rejected = trial.reason && words.reasons[trial.reason];
    const verdict = trial.category
      ? words.categories[trial.category] || desk.words(trial.category)
      : `Not usable: ${rejected ? rejected.title : desk.words(trial.reason || "")}`;
    const none = () => make("span", { class: "dash" }, "–");
    const badge = trial.decision
      ? make("span", { class: trial.decision === "auto" ? "badge good" : "badge review" }, trial.decision === "auto" ? "automatic" : "for review")
      : make("span", { class: "badge bad" }, "rejected");
    return make("tr", {},
      cell("When", make("time", { datetime: trial.at, title: trial.at }, `${DAY.format(new Date(trial.at))} UTC`)),
      cell("File", make("bdi", {}, desk.visible(trial.filename))),
      cell("Verdict", verdict),
      cell("Score", trial.category_score === null || trial.category_score === undefined ? none() : tryCard.percent(trial.category_score)),
      cell("Decision", badge),
      cell("Model", trial.model || none()));
  }

  async function show(place, words) {
    let answer;
    try {
      answer = await desk.ask("GET", `/api/history?source=trials&page_size=${COUNT}&tried_by=${encodeURIComponent(place.dataset.who)}`);
    } catch (error) {
      place.replaceChildren(make("p", { class: "note" }, `They cannot be read just now. ${tryCard.sentence(error.message)}`));
      return;
    }
    if (!answer.items.length) {
      place.replaceChildren(make("p", { class: "quiet" }, "None yet in the last 30 days."));
      return;
    }
    const heads = ["When", "File", "Verdict", "Score", "Decision", "Model"].map((name) => make("th", { scope: "col" }, name));
    place.replaceChildren(make("table", { class: "trials", "aria-labelledby": "last" },
      make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...answer.items.map((trial) => row(trial, words)))));
  }

  return { show };
})();

// One photo on the page for trying: its preview, what happens to it, and the verdict or what is wrong with it.
"use strict";

const tryCard = (() => {
  const { make, visible } = desk;
  const SHOWN = 5; // categories before "the other"
  const LARGEST_SHOWN_PX = 60e6; // a small file may unpack to gigabytes in the browser, too

  function size(bytes) {
    for (const [unit, scale] of [["MB", 1e6], ["kB", 1e3]]) if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
    return `${bytes} bytes`;
  }

  // Of a text that stands in the middle of others in a log.
  const sentence = (text) => { const shown = visible(text); return shown && `${shown[0].toUpperCase()}${shown.slice(1)}${/[.!?]$/.test(shown) ? "" : "."}`; };

  // A share that is neither nothing nor all never reads like it.
  function percent(share, digits = 1) {
    const step = 10 ** -digits;
    if (share > 0 && 100 * share < step / 2) return `<${step.toFixed(digits)} %`;
    if (share < 1 && 100 * share > 100 - step / 2) return `>${(100 - step).toFixed(digits)} %`;
    return desk.percent(share, digits);
  }

  const milliseconds = (value) => (value === null ? "–" : value < 9.95 ? `${value.toFixed(1)} ms` : `${Math.round(value).toLocaleString("en")} ms`);

  // The picture itself; its blob: address is given back as soon as it is read or turns out to be none.
  function preview(file) {
    const place = make("div", { class: "preview" });
    const image = make("img", { alt: "", decoding: "async" });
    const address = URL.createObjectURL(file);
    const over = (isPicture, text) => {
      URL.revokeObjectURL(address);
      place.classList.toggle("none", !isPicture);
      place.replaceChildren(isPicture ? image : text);
    };
    // Its sides are known before its pixels are unpacked, which is when it is first drawn.
    image.addEventListener("load", () => over(image.naturalWidth * image.naturalHeight <= LARGEST_SHOWN_PX, "too large to show"), { once: true });
    image.addEventListener("error", () => over(false, "no preview"), { once: true });
    image.src = address;
    return place;
  }

  // rows: [label, share 0 to 1, title]
  function bars(rows) {
    return make("ul", { class: "bars" }, ...rows.map(([label, share, title]) => {
      const fill = make("span", { class: "fill" });
      fill.style.width = `${100 * share}%`;
      return make("li", {}, make("span", { class: "what", title }, label),
        make("span", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "share" }, percent(share)));
    }));
  }

  function why(verdict, words) {
    const department = words.categories[verdict.category] || visible(desk.words(verdict.category));
    if (verdict.decision === "auto") return [`A night would send it to ${department} without a person.`];
    // Rounded down, so that a score below the threshold never reads like it.
    const numbers = { "{score}": percent(Math.floor(verdict.category_score * 1000) / 1000), "{threshold}": percent(words.threshold, 0) };
    const reasons = verdict.review_reasons.map((reason) => (words.review_reasons[reason] || desk.words(reason))
      .replace(/\{score\}|\{threshold\}/g, (name) => numbers[name]));
    return [`A night would put it before a person. ${reasons.join(" ")}`];
  }

  function facts(verdict, words) {
    const { image, timing } = verdict;
    const line = [image.format, `${image.width_px} × ${image.height_px} pixels`, size(image.size_bytes), verdict.model, milliseconds(timing.total_ms),
      verdict.kept_key ? "kept" : "not kept"];
    const more = [
      ["Model", verdict.model],
      ["Taxonomy", verdict.taxonomy_version],
      ["Time", `${milliseconds(timing.total_ms)}; reading the picture ${milliseconds(timing.decode_ms)}, the model ${milliseconds(timing.predict_ms)}`],
      ["SHA-256", image.sha256],
      ["Kept as", verdict.kept_key],
      ["Department takes", words.branches[verdict.category]],
      ["Request", verdict.request_id],
    ].filter(([, value]) => value);
    return make("details", { class: "facts" }, make("summary", {}, line.join(" · ")),
      make("dl", {}, ...more.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, visible(value))])));
  }

  function verdictParts(verdict, words) {
    const label = (category) => words.categories[category] || visible(desk.words(category));
    const isAuto = verdict.decision === "auto";
    const categories = verdict.category_scores.map(({ category, score }) => [label(category), score, words.branches[category]]);
    const rest = categories.slice(SHOWN);
    return [
      make("p", { class: "verdict" }, make("strong", {}, label(verdict.category)), make("span", { class: "score" }, percent(verdict.category_score)),
        make("span", { class: isAuto ? "badge good" : "badge review" }, isAuto ? "automatic" : "for review")),
      make("p", { class: "why" }, ...why(verdict, words)),
      verdict.quality_labels.length ? make("ul", { class: "quality", "aria-label": "What is poor about the photo" }, ...verdict.quality_labels.map((name) => {
        const known = words.quality[name] || { title: visible(desk.words(name)), what_to_do: "" };
        return make("li", {}, make("span", { class: "badge review" }, known.title), ` ${known.what_to_do}`);
      })) : null,
      make("div", { class: "charts" },
        make("div", {}, make("h4", {}, "Departments"), bars(categories.slice(0, SHOWN)),
          rest.length ? make("details", {}, make("summary", {}, `the other ${rest.length}`), bars(rest)) : null),
        make("div", {}, make("h4", {}, verdict.predictions.length > 1 ? "What the model sees" : "What the model sees first"),
          bars(verdict.predictions.map((seen) => [visible(desk.words(seen.class_name)), seen.confidence, `${seen.class_id}, ${label(seen.category)}`])))),
      verdict.note ? make("p", { class: "note" }, visible(verdict.note)) : null, // such as: it could not be kept
      facts(verdict, words),
    ];
  }

  // file: a File; words: what the server put into the page; remove: called when the person takes it off the list.
  function create(file, words, remove) {
    const told = make("div", { class: "told" });
    const out = make("button", { type: "button", class: "plain out", "aria-label": `Remove ${visible(file.name)}` }, "Remove");
    const element = make("li", { class: "card try" }, preview(file),
      make("div", { class: "about" },
        make("div", { class: "head" }, make("h3", { class: "hostile" }, make("bdi", {}, visible(file.name) || "photo"), " ", make("span", { class: "quiet" }, size(file.size))), out),
        told));
    const card = { element, file, name: visible(file.name) || "photo", state: "chosen", share: 0 };
    out.addEventListener("click", () => remove(card));

    function become(state, share, ...parts) {
      card.state = state;
      card.share = share;
      element.dataset.state = state;
      out.hidden = !["chosen", "refused", "failed"].includes(state);
      told.replaceChildren(...parts.filter((part) => part !== null));
    }

    const line = (text) => make("p", { class: "quiet" }, text);
    const moving = (share, text) => {
      const bar = make("progress", { max: "1", "aria-label": `${card.name}: ${text}` });
      if (share !== null) bar.value = share;
      return [bar, line(text)];
    };

    card.chosen = (text = "") => become("chosen", 0, text ? line(text) : null);
    card.waits = () => become("busy", 0, line("Waits for its turn."));
    card.tell = ({ step, share, seconds }) => {
      if (step === "sending") become("busy", 0.8 * share, ...moving(share, `Sending, ${percent(share, 0)}`));
      else if (step === "deciding") become("busy", 0.8, ...moving(null, "Sent; being classified"));
      else become("busy", 0, make("p", { class: "note" }, `The server asks for a pause. It is sent again in ${seconds} s.`));
    };
    card.done = (verdict) => become("done", 1, ...verdictParts(verdict, words));
    // state: "refused" where sending it again would change nothing, else "failed".
    card.problem = (state, title, message, help) => become(state, 1, make("div", { class: "problem" },
      make("p", {}, make("strong", {}, title)), message ? make("p", {}, sentence(message)) : null, help ? make("p", {}, help) : null));
    card.chosen();
    return card;
  }

  return { create, sentence, percent, size };
})();

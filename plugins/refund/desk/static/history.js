// The history and a photo's own page: what is nice to have. Filters, pages and links work without it.
"use strict";

(() => {
  // A picture that cannot be had says so, whatever the reason; the server's answer is in its log.
  const missing = (image) => {
    const box = image.closest("[data-picture]");
    if (box) box.replaceChildren(desk.make("span", { class: "none" }, "no picture"));
  };
  for (const image of document.querySelectorAll("[data-picture] img")) {
    image.addEventListener("error", () => missing(image));
    if (image.complete && image.naturalWidth === 0 && image.loading !== "lazy") missing(image);
  }

  // The way back leads to where one came from, filters and page included.
  const back = document.querySelector("[data-back]");
  if (back && document.referrer.startsWith(`${location.origin}${desk.root}/history?`)) back.href = document.referrer;

  const form = document.getElementById("filters");
  if (form) {
    const source = form.elements.source;
    const fit = () => { // trials belong to no refund and are not reviewed; a disabled field is not sent
      for (const name of ["refund_id", "reviewed"]) form.elements[name].disabled = source.value === "trials";
    };
    source.addEventListener("change", fit);
    fit();
    form.addEventListener("submit", () => { // short addresses: what is not filled in is not sent
      for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
    });
    window.addEventListener("pageshow", () => { for (const field of form.elements) field.disabled = false; fit(); });
  }

  const percent = (ratio) => (ratio > 0 && ratio < 0.005 ? "<1%" : ratio < 1 && ratio >= 0.995 ? ">99%" : `${Math.round(100 * ratio)}%`);
  const number = (count) => count.toLocaleString("en");

  function sentence(counted) {
    const { photos, outcomes, decisions } = counted;
    const told = [`of ${number(photos)}`];
    const classified = outcomes.classified || 0;
    if (classified && decisions.auto !== undefined) told.push(`${percent(decisions.auto / classified)} sorted by the machine`);
    if (classified && decisions.review !== undefined) told.push(`${percent(decisions.review / classified)} to review`);
    if (outcomes.rejected) told.push(`${number(outcomes.rejected)} rejected`);
    if (counted.mean_confidence !== null) told.push(`mean confidence ${percent(counted.mean_confidence)}`);
    return ` ${told.join(" · ")}`;
  }

  const counts = document.getElementById("counts");
  if (counts) {
    desk.ask("GET", `/api/history/statistics?${counts.dataset.query}`)
      .then((counted) => { document.getElementById("statistics").textContent = sentence(counted); })
      .catch(() => {}); // the photos themselves are there
  }
})();

// The page Tonight: taking an alert.
"use strict";

(() => {
  const moment = (text) => `${text.slice(0, 10)}, ${text.slice(11, 16)} UTC`; // of an ISO time in UTC

  function mark(item, button, by, at) {
    const taken = desk.make("p", { class: "taken" },
      desk.make("span", { class: "badge good" }, "✓ taken"), " by ", desk.make("span", { class: "hostile" }, by), `, ${moment(at)}`);
    button.parentElement.replaceWith(taken);
    item.focus({ preventScroll: true }); // the button that had it is gone
  }

  async function acknowledge(button) {
    const id = button.dataset.acknowledge;
    const item = button.closest("li");
    button.disabled = true;
    try {
      const answer = await desk.ask("POST", `/api/alerts/${id}/acknowledge`, {});
      mark(item, button, answer.acknowledged_by, answer.acknowledged_at);
      desk.say(`Alert ${id} is yours.`);
    } catch (error) {
      if (error.status === 409) mark(item, button, error.answer.acknowledged_by, error.answer.acknowledged_at);
      else button.disabled = false;
      desk.complain(error);
    }
  }

  for (const button of document.querySelectorAll("[data-acknowledge]")) {
    button.addEventListener("click", () => acknowledge(button));
  }
})();

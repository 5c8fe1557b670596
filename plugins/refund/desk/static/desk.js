// What every page uses: asking the desk, saying what happened, making elements. Text is only ever set as text.
"use strict";

const desk = (() => {
  const root = document.body.dataset.root;
  const airflowRoot = document.body.dataset.airflowRoot;
  const mayWrite = document.body.dataset.mayWrite === "true";

  class DeskError extends Error {
    constructor(answer, status) {
      super(answer.message || `The server answered ${status}.`);
      this.answer = answer;
      this.status = status;
    }

    get text() {
      return [this.message, this.answer.what_to_do].filter(Boolean).join(" ");
    }
  }

  async function read(response) {
    const answer = await response.json().catch(() => ({}));
    if (response.status === 401) window.location.reload(); // leads to the login and back
    if (!response.ok) throw new DeskError(answer, response.status);
    return answer;
  }

  // path: below the desk, such as "/api/history"; body: an object, sent as JSON, or a FormData.
  async function ask(method, path, body, options = {}) {
    const headers = { Accept: "application/json", "X-Refund-Desk": "1" };
    const isForm = body instanceof FormData;
    if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch((options.airflow ? airflowRoot : root) + path, {
        method,
        headers,
        body: body === undefined || isForm ? body : JSON.stringify(body),
        credentials: "same-origin",
        signal: options.signal,
        keepalive: options.keepalive === true, // goes on when the page is left
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new DeskError({ message: "The server cannot be reached.", what_to_do: "Look at the network, then try again." }, 0);
    }
    return read(response);
  }

  let silence;
  function say(text, { bad = false } = {}) {
    const place = document.getElementById("said");
    place.textContent = text;
    place.classList.toggle("bad", bad);
    clearTimeout(silence);
    if (!bad) silence = setTimeout(() => { place.textContent = ""; }, 6000);
  }

  const complain = (error) => { if (error.name !== "AbortError") say(error.text || error.message, { bad: true }); };

  // make("p", { class: "quiet", title: name }, "text", otherElement)
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const percent = (ratio, digits = 1) => `${(100 * ratio).toFixed(digits)} %`;
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

  // Text from outside as what it is: marks that nobody sees, or that turn the direction of writing, as their codes.
  const visible = (text) => String(text).replace(UNSEEN, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
  const words = (name) => String(name).replaceAll("_", " ");

  // Airflow shows the desk in a frame that may not lead its window elsewhere, not even by target="_top". Airflow's own
  // page may; it is of this server, so the link is followed there.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[target="_top"]');
    if (!link || window.top === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const outside = window.top.document.createElement("a");
    outside.href = link.href;
    outside.click();
  });

  return { root, airflowRoot, mayWrite, DeskError, ask, say, complain, make, percent, visible, words };
})();

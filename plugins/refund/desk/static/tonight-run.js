// The page Tonight: running a date through Airflow's own API, which checks the right, and following a run to its end.
"use strict";

(() => {
  const page = document.getElementById("tonight");
  const dag = `/api/v2/dags/${encodeURIComponent(page.dataset.dagId)}`;
  const airflow = (method, path, body) => desk.ask(method, dag + path, body, { airflow: true });
  const link = (runId) => `${page.dataset.dag}/runs/${encodeURIComponent(runId)}`;
  const EVERY_MS = 3000;
  const PATIENCE = 5; // unanswered questions in a row
  const GOING = new Set(["queued", "running"]);
  const TASKS = [
    ["health_check", "Check"], ["fetch", "List the photos"], ["shards.validate", "Read"], ["shards.classify", "Classify"],
    ["persist", "Publish"], ["generate_report", "Report"], ["alert_on_drift", "Alerts"],
  ];
  const SIGNS = { success: "✓", running: "…", failed: "✕", skipped: "–", waiting: "○" };

  // --- following -----------------------------------------------------------------------------------------------------

  const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  const nightOf = (run) => (run.conf && run.conf.run_date) || run.partition_key || "";

  function state(instances) {
    const states = instances.map((each) => each.state);
    const failed = ["failed", "upstream_failed"];
    if (!states.length || states.every((each) => each === null)) return "waiting";
    if (states.some((each) => failed.includes(each))) return "failed";
    if (states.every((each) => each === "success" || each === "skipped" || each === "removed")) {
      return states.includes("success") ? "success" : "skipped";
    }
    return states.some((each) => each === "running" || each === "success") ? "running" : "waiting";
  }

  function showSteps(rows) {
    const steps = document.getElementById("progress-steps");
    steps.replaceChildren(...TASKS.map(([id, name]) => {
      const instances = rows.filter((row) => row.task_id === id);
      const is = state(instances);
      const done = instances.filter((row) => row.state === "success").length;
      const of = instances.length > 1 ? ` ${done} of ${instances.length}` : "";
      return desk.make("li", { class: is }, `${SIGNS[is]} ${name}${of}`);
    }));
  }

  function show(run, rows) {
    const box = document.getElementById("progress");
    const night = nightOf(run);
    const task = TASKS.find(([id]) => state(rows.filter((row) => row.task_id === id)) === "running");
    let said = `The night${night ? ` of ${night}` : ""} `;
    if (run.state === "queued") said += "waits for its turn.";
    else said += `is at work${task ? `: ${task[1].toLowerCase()}` : ""}.`;
    const place = document.getElementById("progress-said");
    if (place.textContent !== said) place.textContent = said; // said aloud when it changes, not every few seconds
    document.getElementById("progress-state").textContent = run.state === "queued" ? "queued" : "at work";
    document.getElementById("progress-link").href = link(run.dag_run_id);
    showSteps(rows);
    box.hidden = false;
  }

  async function tasks(path) {
    const rows = [];
    for (let more = true; more;) {
      const page = await airflow("GET", `${path}/taskInstances?limit=100&offset=${rows.length}`);
      rows.push(...page.task_instances);
      more = page.task_instances.length > 0 && rows.length < page.total_entries;
    }
    return rows;
  }

  async function look(runId) {
    const path = `/dagRuns/${encodeURIComponent(runId)}`;
    const run = await airflow("GET", path);
    if (!GOING.has(run.state)) return [run, []];
    return [run, await tasks(path)];
  }

  // Ask until the run has ended, then show its night anew. One run is followed: the one that was asked for last.
  let followed = null;
  async function follow(runId) {
    followed = runId;
    for (let unanswered = 0; unanswered < PATIENCE; await pause(EVERY_MS)) {
      if (followed !== runId) return;
      if (document.hidden) continue;
      try {
        const [run, rows] = await look(runId);
        if (followed !== runId) return;
        unanswered = 0;
        if (GOING.has(run.state)) {
          show(run, rows);
          continue;
        }
        const night = nightOf(run);
        document.getElementById("progress-said").textContent = `The run has ended: ${run.state}.`;
        if (!night || night === page.dataset.day) window.location.reload();
        else window.location.assign(`${desk.root}/tonight?date=${encodeURIComponent(night)}`);
        return;
      } catch (error) {
        unanswered += 1;
        if (unanswered === PATIENCE) desk.complain(error);
      }
    }
  }

  async function followWhatGoes() {
    const found = await airflow("GET", "/dagRuns?state=queued&state=running&order_by=-run_after&limit=10");
    const run = found.dag_runs.find((each) => each.state === "running") || found.dag_runs[0];
    if (run) await follow(run.dag_run_id);
  }

  // --- running a date ------------------------------------------------------------------------------------------------

  const form = document.getElementById("run-form");
  const date = document.getElementById("run-date");
  const ask = document.getElementById("run-ask");
  const confirm = document.getElementById("run-confirm");
  const yes = document.getElementById("run-yes");
  const answer = document.getElementById("run-answer");

  const toAirflow = (href, text) => desk.make("a", { href, target: "_top" }, text);
  const tell = (kind, ...parts) => answer.replaceChildren(desk.make("p", { class: kind }, ...parts));

  function settle() {
    confirm.hidden = true;
    ask.hidden = false;
    date.disabled = false;
  }

  function question() {
    const cell = document.querySelector(`[data-night="${CSS.escape(date.value)}"]`);
    const before = cell && cell.dataset.state === "published" ? " It was published before: only photos that are new or changed are looked at." : "";
    return `Run the night of ${date.value} now?${before}`;
  }

  // What Airflow says is wrong: a text, or a list of what is wrong with which field.
  function detail(error) {
    const said = error.answer && error.answer.detail;
    if (Array.isArray(said)) return said.map((each) => each.msg || JSON.stringify(each)).join("; ");
    if (said && typeof said === "object") return JSON.stringify(said);
    return said || error.message;
  }

  function refuse(error) {
    const name = page.dataset.dagId;
    if (error.status === 403) tell("problem", `Airflow does not let you run ${name}. Ask an administrator of this Airflow for the right to trigger it.`);
    else if (error.status === 404) tell("problem", `Airflow knows no ${name}: ${detail(error)}. `, toAirflow(`${desk.airflowRoot}/`, "Look for import errors"), ".");
    else if (error.status === 409) tell("problem", `Airflow has such a run already: ${detail(error)}. `, toAirflow(page.dataset.dag, "Look at its runs"), ".");
    else if (error.status === 0) tell("problem", error.text);
    else tell("problem", `Airflow refused (${error.status}): ${detail(error)}`);
  }

  async function run(night) {
    const found = await airflow("GET", "");
    if (found.is_paused) {
      tell("note", `${page.dataset.dagId} is paused in Airflow, so a run would only wait. Unpause it with the switch beside its name `,
        toAirflow(page.dataset.dag, "on its page"), ", then run the date here. Once it is unpaused, Airflow runs the last night by itself if that was missed.");
      return;
    }
    const started = await airflow("POST", "/dagRuns", { logical_date: null, partition_key: night, conf: { run_date: night } });
    tell("", desk.make("span", { class: "badge good" }, "✓ started"), ` The night of ${night} is ${started.state}: `, toAirflow(link(started.dag_run_id), "its run in Airflow"), ".");
    follow(started.dag_run_id);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer.replaceChildren();
    document.getElementById("run-question").textContent = question();
    confirm.hidden = false;
    ask.hidden = true;
    date.disabled = true;
    yes.focus();
  });

  function cancel() {
    settle();
    ask.querySelector("button").focus();
  }

  document.getElementById("run-no").addEventListener("click", cancel);
  confirm.addEventListener("keydown", (event) => { if (event.key === "Escape") cancel(); });
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    try {
      await run(date.value);
    } catch (error) {
      refuse(error);
    }
    yes.disabled = false;
    cancel();
  });

  followWhatGoes().catch(() => {}); // who may not see runs, or cannot reach Airflow, still has the page
})();

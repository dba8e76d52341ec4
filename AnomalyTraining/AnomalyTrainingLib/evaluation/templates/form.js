"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const place = "slicer-anomaly-review:" + data.form;
  const state = { reader: "", current: 0, answers: {} };
  let slice = 0;

  // -- what is kept in the browser

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(place) || "null");
      if (kept && typeof kept === "object" && kept.answers && typeof kept.answers === "object") {
        state.reader = String(kept.reader || "");
        state.current = Math.min(Math.max(0, kept.current | 0), data.cases.length - 1);
        state.answers = kept.answers;
      }
    } catch (error) {
      at("storage").hidden = false;
    }
  }

  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch (error) {
      at("storage").hidden = false;
    }
    showProgress();
  }

  // -- one case

  const current = () => data.cases[state.current];
  const empty = () => ({ verdict: null, confidence: null, findings: {}, comment: "" });
  const answerOf = (code) => state.answers[code] || empty();

  function change(values) {
    const code = current().code;
    state.answers[code] = Object.assign(answerOf(code), values);
    keep();
  }

  function complete(code) {
    const answer = answerOf(code);
    return answer.verdict !== null && answer.confidence !== null;
  }

  function showProgress() {
    const done = data.cases.filter((one) => complete(one.code)).length;
    at("progress").value = done;
    at("done").textContent = done + " of " + data.cases.length + " cases answered";
  }

  function showPicture() {
    const one = current();
    const marked = at("map").checked && one.slices[slice].marked !== null;
    at("picture").src = "data:image/jpeg;base64," + (marked ? one.slices[slice].marked : one.slices[slice].plain);
    at("picture").alt = "case " + one.code + ", slice " + (slice + 1) + (marked ? ", with what the model shows" : "");
    at("caption").textContent = marked ? one.caption : "";
    at("slice").value = slice;
    at("place").textContent = (slice + 1) + " of " + one.slices.length;
  }

  function showCase(index) {
    state.current = Math.min(Math.max(0, index), data.cases.length - 1);
    const one = current();
    const answer = answerOf(one.code);
    slice = one.first;
    at("code").textContent = "Case " + one.code;
    at("slice").max = one.slices.length - 1;
    at("slices").hidden = one.slices.length < 2;
    at("mapping").hidden = one.slices.every((each) => each.marked === null);
    for (const box of document.querySelectorAll("input[name=verdict], input[name=confidence]")) {
      box.checked = String(answer[box.name]) === box.value;
    }
    at("comment").value = answer.comment;
    at("previous").disabled = state.current === 0;
    at("next").disabled = state.current === data.cases.length - 1;
    showFindings(one, answer);
    showPicture();
    keep();
  }

  function showFindings(one, answer) {
    const box = at("findings");
    box.hidden = !data.withMap || one.findings.length === 0;
    const rows = one.findings.map((finding) => {
      const row = document.createElement("div");
      row.className = "finding";
      const go = document.createElement("button");
      go.type = "button";
      go.textContent = finding.number + " (" + finding.size + ")";
      go.title = "show this finding";
      go.addEventListener("click", () => {
        slice = finding.slice;
        at("map").checked = true;
        showPicture();
      });
      row.append(go);
      for (const verdict of ["true", "false", "unsure"]) {
        const label = document.createElement("label");
        const radio = document.createElement("input");
        radio.type = "radio";
        radio.name = "finding-" + finding.number;
        radio.value = verdict;
        radio.checked = answer.findings[finding.number] === verdict;
        radio.addEventListener("change", () => {
          const findings = Object.assign({}, answerOf(one.code).findings);
          findings[finding.number] = verdict;
          change({ findings: findings });
        });
        label.append(radio, " " + verdict);
        row.append(label);
      }
      return row;
    });
    box.querySelector("div").replaceChildren(...rows);
  }

  // -- files

  function plain() {
    const answers = [];
    for (const one of data.cases) {
      const answer = answerOf(one.code);
      const findings = Object.entries(answer.findings)
        .map(([number, verdict]) => ({ number: Number(number), verdict: verdict }))
        .sort((a, b) => a.number - b.number);
      answers.push({
        case: one.code,
        verdict: answer.verdict,
        confidence: answer.confidence,
        findings: findings,
        comment: answer.comment,
      });
    }
    return { schema: data.schema, form: data.form, reader: state.reader.trim(), saved: new Date().toISOString(), answers: answers };
  }

  function cell(value) {
    const text = value === null ? "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text; // a spreadsheet would run it
    return '"' + safe.replace(/"/g, '""') + '"';
  }

  function asCsv(table) {
    const lines = [["form", "reader", "case", "verdict", "confidence", "findings", "comment"]];
    for (const answer of table.answers) {
      const findings = answer.findings.map((each) => each.number + "=" + each.verdict).join(";");
      lines.push([table.form, table.reader, answer.case, answer.verdict, answer.confidence, findings, answer.comment]);
    }
    return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  }

  function save(ending) {
    if (!state.reader.trim()) {
      at("saved").textContent = "Give your name or initials first.";
      at("reader").focus();
      return;
    }
    const table = plain();
    const text = ending === "json" ? JSON.stringify(table, null, 1) + "\n" : asCsv(table);
    const link = document.createElement("a");
    const name = table.reader.replace(/[^A-Za-z0-9_-]+/g, "_");
    link.href = URL.createObjectURL(new Blob([text], { type: ending === "json" ? "application/json" : "text/csv" }));
    link.download = "answers-" + data.form + "-" + name + "." + ending;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    const open = data.cases.filter((one) => !complete(one.code)).length;
    at("saved").textContent = "Saved." + (open ? " " + open + " cases have no full answer yet." : "");
  }

  // -- events

  function firstOpen() {
    const after = data.cases.findIndex((one, index) => index > state.current && !complete(one.code));
    const any = data.cases.findIndex((one) => !complete(one.code));
    showCase(after >= 0 ? after : any >= 0 ? any : state.current);
  }

  function choose(name, value) {
    const box = document.querySelector("input[name=" + name + "][value='" + value + "']");
    box.checked = true;
    change({ [name]: name === "confidence" ? Number(value) : value });
  }

  function step(by) {
    slice = Math.min(Math.max(0, slice + by), current().slices.length - 1);
    showPicture();
  }

  const keys = {
    n: () => choose("verdict", "normal"),
    a: () => choose("verdict", "abnormal"),
    u: () => choose("verdict", "uncertain"),
    m: () => { at("map").checked = !at("map").checked; showPicture(); },
    arrowleft: () => showCase(state.current - 1),
    arrowright: () => showCase(state.current + 1),
    arrowup: () => step(1),
    arrowdown: () => step(-1),
  };
  for (const level of "12345") keys[level] = () => choose("confidence", level);

  document.addEventListener("keydown", (event) => {
    const writing = event.target.matches("textarea, #reader, #slice");
    const action = keys[event.key.toLowerCase()];
    if (!action || writing || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    action();
  });
  at("answer").addEventListener("submit", (event) => event.preventDefault());
  at("answer").addEventListener("change", (event) => {
    if (event.target.name === "verdict" || event.target.name === "confidence") choose(event.target.name, event.target.value);
  });
  at("comment").addEventListener("input", () => change({ comment: at("comment").value }));
  at("reader").addEventListener("input", () => { state.reader = at("reader").value; keep(); });
  at("slice").addEventListener("input", () => { slice = Number(at("slice").value); showPicture(); });
  at("picture").addEventListener("wheel", (event) => {
    if (current().slices.length < 2) return;
    event.preventDefault();
    step(event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  at("map").addEventListener("change", showPicture);
  at("previous").addEventListener("click", () => showCase(state.current - 1));
  at("next").addEventListener("click", () => showCase(state.current + 1));
  at("open").addEventListener("click", firstOpen);
  at("json").addEventListener("click", () => save("json"));
  at("csv").addEventListener("click", () => save("csv"));

  load();
  at("reader").value = state.reader;
  showCase(state.current);
})();

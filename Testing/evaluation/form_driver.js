// Fills in a form as a reader would, and leaves what came of it in the page.
(() => {
  const at = (id) => document.getElementById(id);
  const press = (key, target) =>
    (target || document.body).dispatchEvent(new KeyboardEvent("keydown", { key: key, bubbles: true, cancelable: true }));
  const write = (id, text) => {
    at(id).value = text;
    at(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const data = JSON.parse(at("data").textContent);
  const said = { begun: { code: at("code").textContent, done: at("done").textContent, reader: at("reader").value } };
  const blobs = [];
  URL.createObjectURL = (blob) => {
    blobs.push(blob);
    return "#";
  };
  write("reader", "");
  at("json").click();
  said.unnamed = at("saved").textContent;
  write("reader", "=Dr. <b>");
  while (!at("previous").disabled) at("previous").click();
  press("a");
  press("5");
  write("comment", '=1+1, "quoted"\nnext line');
  said.plain = at("picture").src.length;
  press("m");
  said.map = at("map").checked;
  said.marked = at("picture").src.length;
  press("ArrowRight");
  press("n");
  press("2");
  press("u");
  press("a", at("comment"));
  document.querySelectorAll("input[name=confidence]")[3].click();
  said.done = at("done").textContent;
  said.second = at("code").textContent;
  // The first case with a finding, wherever it is.
  const asked = data.cases.findIndex((one) => one.findings.length > 0);
  while (!at("previous").disabled) at("previous").click();
  for (let n = 0; n < asked; n += 1) at("next").click();
  document.querySelector("#findings button").click();
  document.querySelector("#findings input[value=false]").click();
  while (!at("previous").disabled) at("previous").click();
  at("next").click();
  at("json").click();
  at("csv").click();
  Promise.all(blobs.map((blob) => blob.text())).then((texts) => {
    said.files = texts;
    const box = document.createElement("pre");
    box.id = "result";
    box.textContent = JSON.stringify(said);
    document.body.append(box);
  });
})();

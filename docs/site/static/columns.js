// Tabs on a narrow screen, a fourth column on a wide one. What is chosen is kept from page to page,
// and the row at the top of the screen stays there.
document.addEventListener("DOMContentLoaded", () => {
  const tables = document.querySelectorAll("table.columns");
  if (!tables.length) return;
  const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private */ } };
  const names = { pytorch: "PyTorch", tf: "TensorFlow", jax: "JAX", reference: "Reference" };
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.innerHTML = `<span class="tabs">${Object.entries(names).map(([value, name]) =>
    `<label><input type="radio" name="column" value="${value}"> ${name}</label>`).join("")}</span>
    <label class="fourth"><input type="checkbox"> NumPy reference as a fourth column</label>`;
  tables[0].closest("section").before(controls);
  const rows = [...document.querySelectorAll("table.columns tr")];
  const reference = controls.querySelector("input[type=checkbox]");
  let place = null;
  const remember = () => {
    const row = rows.find((r) => r.offsetHeight && r.getBoundingClientRect().bottom > 90);
    place = row && [row, row.getBoundingClientRect().top];
  };
  const show = (column) => {
    document.body.dataset.column = column;
    document.body.dataset.reference = reference.checked;
    store("column", column);
    store("reference", reference.checked);
    if (place) window.scrollBy(0, place[0].getBoundingClientRect().top - place[1]);
  };
  const chosen = stored("column") in names ? stored("column") : "pytorch";
  controls.querySelector(`input[value=${chosen}]`).checked = true;
  reference.checked = stored("reference") === "true";
  controls.addEventListener("pointerdown", remember);
  controls.addEventListener("change", () => show(controls.querySelector("[name=column]:checked").value));
  show(chosen);
});

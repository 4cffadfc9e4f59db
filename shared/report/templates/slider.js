const bar = document.getElementById("slider");
const steps = bar.dataset.steps.split(" ").map(Number);
const slider = document.getElementById("step");
const show = () => {
  const step = steps[slider.value];
  document.getElementById("shown").textContent = step.toLocaleString("en");
  slider.setAttribute("aria-valuetext", "step " + step);
  for (const figure of document.querySelectorAll(".grid")) {
    const images = [...figure.querySelectorAll("img")];
    // The latest that is not from after this step; before the first one, the first.
    const shown = images.filter((image) => image.dataset.step <= step).pop() ?? images[0];
    for (const image of images) image.hidden = image !== shown;
    const own = Number(shown.dataset.step);
    figure.querySelector(".grid-step").textContent = "step " + own.toLocaleString("en");
  }
};
slider.addEventListener("input", show);
bar.hidden = false;
show();

// Runs before the first paint, so that a chosen theme never flashes; main.js sets the button.
{
  const chosen = localStorage.getItem("fewstroke.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}

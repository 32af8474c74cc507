/** The page on which people log in: with a password, or at the provider to which a button leads. */

import { ApiError, login } from "./api.js";
import { element, showView } from "./dom.js";

/**
 * Show the ways to log in; resolves when the caller is logged in here, and never when a button leads elsewhere.
 * @param {import("./api.js").Login[]} ways
 * @returns {Promise<void>}
 */
export function logIn(ways) {
  const path = ways.find((way) => way.kind === "password")?.path ?? null;
  const elsewhere = ways.filter((way) => way.kind === "redirect");
  element("login-elsewhere", HTMLElement).replaceChildren(...elsewhere.map(link));
  element("login-password", HTMLElement).hidden = path === null && elsewhere.length > 0;
  element("login-why", HTMLElement).textContent =
    path === null && elsewhere.length ? "This server is for people who log in." : "This server is for people with the password.";
  const form = element("login-form", HTMLFormElement);
  const field = element("password", HTMLInputElement);
  const error = element("login-error", HTMLElement);
  const submit = form.querySelector("button");
  const allow = (/** @type {boolean} */ yes) => submit?.toggleAttribute("disabled", !yes);
  error.textContent = "";
  field.value = "";
  showView("login");
  if (path === null && elsewhere.length) return new Promise(() => {});
  if (path === null) {
    error.textContent = "This server takes its password in another way than through this page. Ask whoever runs it.";
    allow(false);
    return new Promise(() => {});
  }
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      allow(false);
      let wait = 0;
      try {
        await login(path, field.value);
        error.textContent = "";
        field.value = "";
        resolve();
      } catch (problem) {
        error.textContent = sentence(problem);
        wait = problem instanceof ApiError ? problem.retryAfter : 0;
        field.setAttribute("aria-invalid", "true");
        field.select();
      }
      setTimeout(() => allow(true), wait * 1000);
    };
    field.oninput = () => field.removeAttribute("aria-invalid");
  });
}

/** The button to a provider's page. @param {import("./api.js").Login} way */
function link(way) {
  const button = document.createElement("a");
  button.className = "button";
  button.href = way.path.replace(/^\//, "");
  button.textContent = way.label || "Log in";
  return button;
}

/** @param {unknown} problem */
function sentence(problem) {
  if (!(problem instanceof ApiError)) return String(problem);
  if (problem.status === 401) return "That is not the password. Try again.";
  if (problem.status === 429) return `Too many tries. Wait ${problem.retryAfter || 60} seconds, then try again.`;
  return problem.message;
}

/** The password page: asks until the server is content. */

import { ApiError, login } from "./api.js";
import { element, showView } from "./dom.js";

/**
 * Show the password page; resolves when the caller is logged in.
 * @param {string | null} path where to log in; null when the server has no such address
 * @returns {Promise<void>}
 */
export function askPassword(path) {
  const form = element("login-form", HTMLFormElement);
  const field = element("password", HTMLInputElement);
  const error = element("login-error", HTMLElement);
  const submit = form.querySelector("button");
  const allow = (/** @type {boolean} */ yes) => submit?.toggleAttribute("disabled", !yes);
  error.textContent = "";
  field.value = "";
  showView("login");
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

/** @param {unknown} problem */
function sentence(problem) {
  if (!(problem instanceof ApiError)) return String(problem);
  if (problem.status === 401) return "That is not the password. Try again.";
  if (problem.status === 429) return `Too many tries. Wait ${problem.retryAfter || 60} seconds, then try again.`;
  return problem.message;
}

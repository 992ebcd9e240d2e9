/** The dashboard's script: what the pages do beyond what the server renders. */
export {};

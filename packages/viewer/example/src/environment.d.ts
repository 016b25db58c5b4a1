interface ImportMetaEnv {
  readonly VITE_SERVER?: string;
  readonly VITE_CLIENT_ID?: string;
}
